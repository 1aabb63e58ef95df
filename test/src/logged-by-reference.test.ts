import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import type { AgentDB, Row } from '../../src/index.ts'
import { asCentre, connectionOf, errorOf, logOf, openStore } from '../support/store.ts'

let db: AgentDB
let conversationId: string
beforeEach(async () => {
  db = await openStore()
  conversationId = db.conversations.create({ title: 'x' }).id
})
afterEach(() => db.close())

const say = (content = 'as it was said'): Row<'messages'> =>
  db.messages.create({ conversation_id: conversationId, role: 'user', content, tokens_used: 7 })

/** What the log itself holds of the inserts of a row, without looking at the row. */
const held = (id: string): unknown[] =>
  connectionOf(db)
    .all<{ patch: string | null }>(
      `SELECT patch FROM sync_log WHERE id = ? AND op = 'insert' ORDER BY n`,
      id,
    )
    .map(({ patch }) => (patch === null ? null : (JSON.parse(patch) as unknown)))

describe('an inserted row of an append table', () => {
  test('is in the log as a reference, which reads as the row', () => {
    const message = say()
    expect(held(message.id)).toEqual([null])
    expect(logOf(db, 'messages')).toMatchObject([{ op: 'insert', patch: message }])
  })

  test.each([
    ['changes', (id: string) => db.messages.update(id, { feedback_rating: 5 })],
    ['is deleted', (id: string) => db.messages.delete(id)],
    ['goes with its parent', () => db.conversations.delete(conversationId)],
    [
      'loses the row that it refers to',
      (id: string) => {
        const { parent_message_id: parent } = db.messages.find(id) ?? {}
        db.messages.delete(parent ?? '')
      },
    ],
    [
      'is replaced by raw SQL',
      (id: string) =>
        connectionOf(db).run(
          `INSERT OR REPLACE INTO messages (id, conversation_id, role, content, sequence_number) VALUES (?, ?, 'user', 'other', 9)`,
          id,
          conversationId,
        ),
    ],
    [
      'is changed by a batch of the centre',
      (id: string) => asCentre(db, `UPDATE messages SET content = 'theirs' WHERE id = ?`, id),
    ],
    [
      'is taken away by a batch of the centre',
      (id: string) => asCentre(db, 'DELETE FROM messages WHERE id = ?', id),
    ],
  ])('stays in the log as it was inserted when it %s', (_, happens) => {
    const parent = say('first')
    const message = db.messages.create({
      conversation_id: conversationId,
      role: 'user',
      content: 'as it was said',
      parent_message_id: parent.id,
    })
    happens(message.id)
    expect(held(message.id)[0]).toEqual(message)
  })

  test('is a reference again where its change was rolled back', () => {
    const { id } = say()
    db.transaction(() => {
      const undone = (): void =>
        db.transaction(() => {
          db.messages.update(id, { feedback_rating: 1 })
          throw new Error('undo')
        })
      expect(undone).toThrow('undo')
    })
    expect(held(id)).toEqual([null])
  })

  test('that is made, deleted and made again has both images', () => {
    const first = say()
    db.messages.delete(first.id)
    const again = db.messages.create({ ...first, content: 'said again' })
    expect(logOf(db, 'messages').map(({ op, patch }) => [op, patch])).toEqual([
      ['insert', first],
      ['delete', null],
      ['insert', again],
    ])
  })

  test('keeps its bytes, as it was before a change', () => {
    const {
      id: _,
      updated_at: __,
      ...embedding
    } = db.embeddings.create({
      collection: 'incident_knowledge',
      model: 'm',
      dimension: 2,
      vector: Float32Array.of(1, -0.5),
    })
    const [{ id } = { id: '' }] = db.embeddings.list()
    db.embeddings.update(id, { vector: Float32Array.of(3, 4), dimension: 2, model: 'n' })
    expect(held(id)).toMatchObject([{ model: embedding.model, vector: '0000803F000000BF' }])
  })

  test('counts into the size of its transaction', () => {
    const megabytes = (count: number): string => 'x'.repeat(count * 1024 * 1024)
    const rows = Array.from({ length: 4 }, () => ({
      conversation_id: conversationId,
      role: 'user',
      content: megabytes(12.5),
    }))
    expect(errorOf(() => db.messages.createMany(rows)).code).toBe('TOO_LARGE')
    expect(db.messages.createMany(rows.slice(1))).toHaveLength(3)
  })
})
