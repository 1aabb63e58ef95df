import { Client } from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { newId } from '../../schema/values/id.ts'
import { databaseKinds, openAgent } from '../support/centre.ts'
import { conversation, incident, message, setUpPush, workflow } from '../support/push.ts'
import {
  insert,
  newTransactionId,
  nowMicros,
  pushRequest,
  remove,
  update,
} from '../support/wire-client.ts'

describe.each(databaseKinds)('push on %s', (kind) => {
  const push = setUpPush(kind)

  describe('of several agents on the same rows at once', () => {
    const owned = ['title', 'description', 'root_cause', 'resolution_notes'] as const

    test('in opposite orders loses no update', async () => {
      const clients = await Promise.all(owned.map(() => push.client()))
      const setup = await push.client()
      const ids = Array.from({ length: 12 }, () => newId())
      await setup.push(ids.map((id) => [incident(id)]))
      const { nonce, position } = await setup.pull()
      const rounds = 6
      await Promise.all(
        clients.map(async (one, who) => {
          const column = owned[who] ?? 'title'
          const order = who % 2 === 0 ? ids : ids.toReversed()
          for (let round = 1; round <= rounds; round++) {
            await one.push(
              [order.map((id) => update('incidents', id, { [column]: `round ${round}` }))],
              { base: { nonce, position } },
            )
          }
        }),
      )
      for (const found of await push.rows('incidents', ids))
        expect(owned.map((column) => found[column])).toEqual(owned.map(() => `round ${rounds}`))
      for (const one of clients)
        for (const outcome of await one.outcomes()) expect(outcome.kind).toBe('merged')
    })

    test('counts every message of a conversation', async () => {
      const clients = await Promise.all([1, 2, 3, 4].map(() => push.client()))
      const setup = await push.client()
      const [a, b] = [newId(), newId()]
      await setup.push([[conversation(push.user, a)], [conversation(push.user, b)]])
      await Promise.all(
        clients.map(async (one, who) => {
          const order = who % 2 === 0 ? [a, b] : [b, a]
          for (let round = 0; round < 5; round++)
            await one.push(order.map((id) => [message(id), message(id)]))
        }),
      )
      for (const id of [a, b]) {
        const there = await push.centre.db
          .selectFrom('messages')
          .select('id')
          .where('conversation_id', '=', id)
          .execute()
        expect(there).toHaveLength(40)
        expect(await push.row('conversations', id)).toMatchObject({ message_count: 40 })
      }
    })

    test('deletes and inserts of children end with both rows or with neither, and whoever came second is told', async () => {
      const [deleter, writer] = [await push.client(), await push.client()]
      const chats = Array.from({ length: 15 }, () => newId())
      await deleter.push(chats.map((id) => [conversation(push.user, id)]))
      const texts = chats.map(() => newId())
      await Promise.all([
        (async () => {
          for (const id of chats) await deleter.push([[remove('conversations', id)]])
        })(),
        (async () => {
          for (const [i, id] of chats.entries()) await writer.push([[message(id, texts[i])]])
        })(),
      ])
      const idsOf = async (table: 'conversations' | 'messages', ids: readonly string[]) =>
        new Set((await push.rows(table, ids)).map(({ id }) => id))
      const [chatsLeft, textsLeft] = [
        await idsOf('conversations', chats),
        await idsOf('messages', texts),
      ]
      const refused = new Map(
        [...(await deleter.outcomes()), ...(await writer.outcomes())].map(({ id, reason }) => [
          id,
          reason,
        ]),
      )
      for (const [i, chat] of chats.entries()) {
        const text = texts[i] ?? ''
        const isLeft = chatsLeft.has(chat)
        expect(textsLeft.has(text)).toBe(isLeft)
        expect([refused.get(chat), refused.get(text)]).toEqual(
          isLeft ? ['newer_children', undefined] : [undefined, 'deleted'],
        )
      }
    })
  })

  test('two agents with real stores that make the same workflow both keep their own', async () => {
    await using a = await openAgent(push.centre, push.user)
    await using b = await openAgent(push.centre, push.user)
    const name = `Same ${newId()}`
    const [wa, wb] = [a, b].map(({ db }) =>
      db.workflows.create({ name, definition: { steps: [] } }),
    )
    if (wa === undefined || wb === undefined) throw new Error('nothing was made')
    const run = b.db.workflowExecutions.create({ workflow_id: wb.id })
    await Promise.all([a.sync.now(), b.sync.now()])
    await Promise.all([a.sync.now(), b.sync.now()])
    for (const { db } of [a, b]) {
      const versions = [wa.id, wb.id].map((id) => db.workflows.find(id)?.version)
      expect(new Set(versions)).toEqual(new Set([1, 2]))
      expect(db.workflowExecutions.find(run.id)?.workflow_id).toBe(wb.id)
    }
    expect(a.db.workflows.find(wa.id)?.version).toBe(b.db.workflows.find(wa.id)?.version)
  })
})

/** Interleavings that need two sessions of a real server. */
describe('push against a transaction that is open at the centre', () => {
  const push = setUpPush('postgres')
  let other: Client

  beforeAll(async () => {
    other = new Client({ connectionString: push.centre.databaseUrl })
    await other.connect()
  })

  afterAll(() => other.end())

  /** Resolves when so many sessions of this database wait for a row that another has locked. */
  async function untilSomeoneWaits(sessions = 1): Promise<void> {
    for (;;) {
      const { rowCount } = await other.query(
        `SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`,
      )
      if ((rowCount ?? 0) >= sessions) return
      // Inside a transaction the view of the statistics is frozen; this looks anew.
      await other.query('SELECT pg_stat_clear_snapshot()')
    }
  }

  test('a child whose parent is being deleted waits, then hears that it was deleted', async () => {
    const one = await push.client()
    const [chat, text] = [newId(), newId()]
    await one.push([[conversation(push.user, chat)]])
    await other.query('BEGIN')
    await other.query('DELETE FROM conversations WHERE id = $1', [chat])
    const pushed = one.push([[message(chat, text)], [conversation(push.user)]])
    await untilSomeoneWaits()
    await other.query('COMMIT')
    await pushed
    expect(await one.outcomes()).toMatchObject([
      { seq: 2, kind: 'rejected', reason: 'deleted', id: text },
    ])
  })

  test('a delete waits for a child that is being made, and takes it along with a word of it', async () => {
    const one = await push.client()
    const [flow, run, step] = [newId(), newId(), newId()]
    await one.push([
      [workflow(push.user, `W ${flow}`, flow)],
      [insert('workflow_executions', { id: run, workflow_id: flow, user_id: push.user.id })],
    ])
    const { cursor } = await one.pull()
    await other.query('BEGIN')
    await other.query(
      `INSERT INTO step_executions (id, workflow_execution_id, step_id, step_name, step_type) VALUES ($1, $2, 's', 's', 's')`,
      [step, run],
    )
    const pushed = one.push([[remove('workflow_executions', run)]])
    await untilSomeoneWaits()
    await other.query('COMMIT')
    await pushed
    const { rows: left } = await other.query('SELECT id FROM step_executions WHERE id = $1', [step])
    expect(left).toEqual([])
    const { gone, conflicts } = await one.pull(cursor)
    expect(gone.map(([, id]) => id).toSorted()).toEqual([run, step].toSorted())
    expect(conflicts).toMatchObject([
      {
        rowId: step,
        loser: null,
        winner: one.clientId,
        lost: { id: step, step_id: 's' },
        kept: {},
      },
    ])
  })

  test('a delete that waited for a child of a conversation is rejected for it', async () => {
    const one = await push.client()
    const [chat, text] = [newId(), newId()]
    await one.push([[conversation(push.user, chat)]])
    await other.query('BEGIN')
    await other.query(
      `INSERT INTO messages (id, conversation_id, role, content, sequence_number) VALUES ($1, $2, 'user', 'm', 1)`,
      [text, chat],
    )
    const pushed = one.push([[remove('conversations', chat)]])
    await untilSomeoneWaits()
    await other.query('COMMIT')
    await pushed
    expect(await one.outcomes()).toMatchObject([
      { kind: 'rejected', reason: 'newer_children', id: chat, server_row: { id: chat } },
    ])
    expect(await push.rows('messages', [text])).toHaveLength(1)
  })

  test('an update of a row that is being changed waits, then merges with what came of it', async () => {
    const one = await push.client()
    const id = newId()
    await one.push([[incident(id)]])
    const { nonce, position } = await one.pull()
    await other.query('BEGIN')
    await other.query(`UPDATE incidents SET title = 'theirs' WHERE id = $1`, [id])
    const pushed = one.push(
      [[update('incidents', id, { title: 'mine', root_cause: 'mine' })]],
      // Older than the other's write, which therefore wins.
      { base: { nonce, position }, clock: nowMicros() - 3_600_000_000 },
    )
    await untilSomeoneWaits()
    await other.query('COMMIT')
    await pushed
    const { rows: found } = await other.query(
      'SELECT title, root_cause FROM incidents WHERE id = $1',
      [id],
    )
    expect(found).toEqual([{ title: 'theirs', root_cause: 'mine' }])
    expect(await one.outcomes()).toMatchObject([{ kind: 'merged', changed: { title: 'theirs' } }])
  })

  test('a copied store that pushes at the same moment as its original is told so, and none of its work is taken for the other', async () => {
    const [one, chats] = [await push.client(), [newId(), newId(), newId(), newId()]]
    await one.push([[conversation(push.user)]])
    const { last } = one
    const work = (seq: number, id: string | undefined) => ({
      seq,
      id: newTransactionId(),
      mutations: [conversation(push.user, id)],
    })
    const copied = [work(2, chats[1]), work(3, chats[2])]
    await other.query('BEGIN')
    await other.query('SELECT 1 FROM sync.client WHERE client_id = $1 FOR UPDATE', [one.clientId])
    const originals = one.push([[conversation(push.user, chats[0])]])
    await untilSomeoneWaits()
    const copys = one.mustFail(pushRequest(one.clientId, copied, last ?? null))
    await untilSomeoneWaits(2)
    await other.query('COMMIT')
    await originals
    expect(await copys).toMatchObject({ status: 409, code: 'STORE_FORKED' })
    expect((await push.rows('conversations', chats)).map(({ id }) => id)).toEqual([chats[0]])
  })

  test('work that two copies of a store send at the same moment, each under its own name, is done once and refused to neither', async () => {
    const [one, twin] = [await push.client(), await push.client()]
    const [chat, text] = [newId(), newId()]
    await one.push([[conversation(push.user, chat)]])
    await twin.push([[conversation(push.user)]])
    const shared = { seq: 2, id: newTransactionId(), mutations: [message(chat, text)] }
    await other.query('BEGIN')
    await other.query('SELECT 1 FROM conversations WHERE id = $1 FOR UPDATE', [chat])
    const both = [one, twin].map((client) =>
      client.mustSend(pushRequest(client.clientId, [shared], client.last)),
    )
    // Both have looked whether it was done before.
    await untilSomeoneWaits(2)
    await other.query('COMMIT')
    await Promise.all(both)
    expect(await push.row('conversations', chat)).toMatchObject({ message_count: 1 })
    for (const client of [one, twin]) {
      expect((await client.pull()).watermark).toMatchObject({ seq: 2 })
      expect(await client.outcomes()).toEqual([])
    }
  })

  test('a deadlock with somebody is tried again until it passes', async () => {
    const one = await push.client()
    const ids = [newId(), newId()].toSorted()
    await one.push(ids.map((id) => [incident(id)]))
    await other.query('BEGIN')
    // The push locks in ascending order; this one holds the last and then wants the first.
    await other.query(`UPDATE incidents SET description = 'theirs' WHERE id = $1`, [ids[1]])
    const pushed = one.push([ids.map((id) => update('incidents', id, { title: 'mine' }))])
    await untilSomeoneWaits()
    // Whoever has waited longer than this is ended by the server: let it be the push.
    await other.query(`SET LOCAL deadlock_timeout = '1h'`)
    await other.query(`UPDATE incidents SET description = 'theirs' WHERE id = $1`, [ids[0]])
    await other.query('COMMIT')
    await pushed
    const { rows: found } = await other.query(
      'SELECT title, description FROM incidents WHERE id = ANY($1::uuid[])',
      [ids],
    )
    expect(found).toEqual(ids.map(() => ({ title: 'mine', description: 'theirs' })))
    expect((await one.outcomes()).filter(({ kind }) => kind === 'rejected')).toEqual([])
  })
})
