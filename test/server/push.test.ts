import { describe, expect, test } from 'vitest'
import type { Stored } from '../../schema/codec.ts'
import { newId } from '../../schema/values/id.ts'
import { timestampOfMicros } from '../../schema/values/timestamp.ts'
import { createUser, databaseKinds } from '../support/centre.ts'
import { conversation, incident, message, setUpPush } from '../support/push.ts'
import { newRowIds, sampleRow } from '../support/sample-rows.ts'
import {
  insert,
  newTransactionId,
  nowMicros,
  pushRequest,
  remove,
  rowsByTable,
  update,
  type WireMutation,
} from '../support/wire-client.ts'

describe.each(databaseKinds)('push on %s', (kind) => {
  const push = setUpPush(kind)

  describe('that is repeated', () => {
    test('takes effect once, however often and however many at a time it comes', async () => {
      const one = await push.client()
      const [chat, text] = [newId(), newId()]
      const request = pushRequest(one.clientId, [
        { seq: 1, id: newTransactionId(), mutations: [conversation(push.user, chat)] },
        { seq: 2, id: newTransactionId(), mutations: [message(chat, text)] },
        { seq: 3, id: newTransactionId(), mutations: [message(newId())] },
      ])
      const answers = await Promise.all([1, 2, 3, 4].map(() => one.mustSend(request)))
      answers.push(await one.mustSend(request))
      expect(answers).toEqual(Array.from({ length: 5 }, () => ({ nextSeq: 4 })))
      expect(await push.row('conversations', chat)).toMatchObject({ message_count: 1 })
      expect(await push.row('messages', text)).toBeDefined()
      const pull = await one.pull()
      expect(pull.outcomes.map(({ seq, kind: how }) => [seq, how])).toEqual([[3, 'rejected']])
      expect(pull.watermark?.seq).toBe(3)
    })

    test('after its answer was lost goes on where it ended', async () => {
      const one = await push.client()
      const chat = newId()
      const all = Array.from({ length: 6 }, (_, i) => ({
        seq: i + 1,
        id: newTransactionId(),
        mutations: [i === 0 ? conversation(push.user, chat) : message(chat)],
      }))
      await one.mustSend(pushRequest(one.clientId, all.slice(0, 4)))
      expect(await one.mustSend(pushRequest(one.clientId, all))).toEqual({ nextSeq: 7 })
      expect(await push.row('conversations', chat)).toMatchObject({ message_count: 5 })
      // All of it was applied before: known by the ids, not by the number alone.
      expect(await one.mustSend(pushRequest(one.clientId, all.slice(0, 2)))).toEqual({ nextSeq: 7 })
      expect(await push.row('conversations', chat)).toMatchObject({ message_count: 5 })
    })

    test('with a gap is refused, and what is before the gap is not taken', async () => {
      const one = await push.client()
      const [a, b] = [newId(), newId()]
      const within = await one.mustFail(
        pushRequest(one.clientId, [
          { seq: 1, id: newTransactionId(), mutations: [conversation(push.user, a)] },
          { seq: 3, id: newTransactionId(), mutations: [conversation(push.user, b)] },
        ]),
      )
      expect(within).toMatchObject({ status: 400, code: 'PROTOCOL' })
      expect(within.message).toContain('transactions.1.seq')
      const ahead = await one.mustFail(
        pushRequest(one.clientId, [
          { seq: 2, id: newTransactionId(), mutations: [conversation(push.user, b)] },
        ]),
      )
      expect(ahead).toMatchObject({ status: 409, code: 'FORKED' })
      expect(await push.rows('conversations', [a, b])).toEqual([])
      expect((await one.pull()).watermark).toBeNull()
    })

    test('under numbers that other work had is a fork, and nothing of it is swallowed or applied', async () => {
      const one = await push.client()
      await one.push([[conversation(push.user)], [conversation(push.user)]])
      const { last } = one
      const id = newId()
      const forks = [
        // The file was restored: seq 2 is other work now.
        pushRequest(one.clientId, [
          { seq: 2, id: newTransactionId(), mutations: [conversation(push.user, id)] },
        ]),
        // It was copied: what came before is not what the centre has.
        pushRequest(
          one.clientId,
          [{ seq: 3, id: newTransactionId(), mutations: [conversation(push.user, id)] }],
          { seq: 2, id: newTransactionId() },
        ),
        pushRequest(one.clientId, [
          { seq: 1, id: newTransactionId(), mutations: [conversation(push.user, id)] },
        ]),
      ]
      for (const fork of forks)
        expect(await one.mustFail(fork)).toMatchObject({ status: 409, code: 'STORE_FORKED' })
      expect(await push.row('conversations', id)).toBeUndefined()
      expect((await one.pull()).watermark).toEqual(last)
    })
  })

  test('rows, watermark and outcomes come in one batch', async () => {
    const one = await push.client()
    const { cursor } = await one.pull()
    const [good, bad] = [newId(), newId()]
    await one.push([
      [conversation(push.user, good)],
      [conversation(push.user, bad, 'x'.repeat(501))],
    ])
    const pull = await one.pull(cursor)
    expect(
      rowsByTable(pull)
        .get('conversations')
        ?.map(({ id }) => id),
    ).toEqual([good])
    expect(pull.watermark).toEqual(one.last)
    expect(pull.outcomes).toMatchObject([
      { seq: 2, n: 0, kind: 'rejected', reason: 'invalid_value', table: 'conversations', id: bad },
    ])
    expect(pull.outcomes[0]?.message).toContain('conversations.title')
  })

  describe('of a bad transaction', () => {
    test.each([
      [
        'the database finds',
        { role: 'robot' },
        { sqlstate: '23514', constraint: 'chk_role', reason: 'check' },
      ],
      ['the server finds', { tokens_used: 2 ** 40 }, { reason: 'invalid_value' }],
    ] as const)('that %s among three hundred costs only itself', async (_, bad, expected) => {
      const one = await push.client()
      const chat = newId()
      await one.push([[conversation(push.user, chat)]])
      const ids = Array.from({ length: 300 }, () => [newId(), newId()] as const)
      const culprits = new Set([0, 137, 138, 299])
      const seqs = await one.push(
        ids.map(([a, b], i) => [
          message(chat, a),
          message(chat, b, culprits.has(i) ? { ...bad } : {}),
        ]),
      )
      const there = new Set((await push.rows('messages', ids.flat())).map(({ id }) => id))
      for (const [i, pair] of ids.entries())
        expect([i, ...pair.map((id) => there.has(id))]).toEqual([
          i,
          !culprits.has(i),
          !culprits.has(i),
        ])
      const outcomes = await one.outcomes()
      expect(outcomes).toHaveLength(2 * culprits.size)
      for (const i of culprits) {
        const seq = seqs[i] ?? 0
        const [sibling, culprit] = outcomes.filter((outcome) => outcome.seq === seq)
        expect(culprit).toMatchObject({ n: 1, kind: 'rejected', id: ids[i]?.[1], ...expected })
        expect(sibling).toMatchObject({
          n: 0,
          kind: 'dependency_failed',
          on: `${seq}.1`,
          id: ids[i]?.[0],
        })
      }
      expect(await push.row('conversations', chat)).toMatchObject({
        message_count: 2 * (300 - culprits.size),
      })
    })

    test('names the constraint and the state of the database', async () => {
      const one = await push.client()
      const late = '2030-01-01T00:00:00.000000Z'
      const timing = await one.outcomeOf(
        incident(newId(), { detected_at: late, resolved_at: '2020-01-01T00:00:00.000000Z' }),
      )
      expect(timing).toMatchObject({
        kind: 'rejected',
        reason: 'check',
        sqlstate: '23514',
        constraint: 'chk_incident_timing',
      })
      const missing = await one.outcomeOf(
        insert('messages', { id: newId(), conversation_id: newId() }),
      )
      expect(missing).toMatchObject({ kind: 'rejected', reason: 'forbidden' })
      const chat = newId()
      await one.push([[conversation(push.user, chat)]])
      const required = await one.outcomeOf(
        insert('messages', { id: newId(), conversation_id: chat, role: 'user' }),
      )
      expect(required).toMatchObject({ kind: 'rejected', reason: 'not_null', sqlstate: '23502' })
    })

    test('names the one at fault among several mutations of a row', async () => {
      const one = await push.client()
      const id = newId()
      await one.push([[incident(id, { detected_at: '2030-01-01T00:00:00.000000Z' })]])
      const [seq] = await one.push([
        [
          update('incidents', id, { title: 'x' }),
          update('incidents', id, { resolved_at: '2020-01-01T00:00:00.000000Z' }),
          update('incidents', id, { title: 'y' }),
        ],
      ])
      const expected = { kind: 'dependency_failed', on: `${seq}.1` }
      expect(await one.outcomes()).toMatchObject([
        { n: 0, ...expected },
        { n: 1, kind: 'rejected', reason: 'check', constraint: 'chk_incident_timing' },
        { n: 2, ...expected },
      ])
    })

    test.each([
      ['incidents', { severity: 'apocalyptic' }],
      ['incidents', { title: 'a\u0000b' }],
      ['incidents', { title: null }],
      ['incidents', { title: 7 }],
      ['incidents', { metadata: '{"a":' }],
      ['incidents', { metadata: '{"a":"\\u0000"}' }],
      ['incidents', { metadata: '{"a":12345678901234567890}' }],
      ['incidents', { affected_services: '{}' }],
      ['incidents', { affected_services: '[["nested"]]' }],
      ['incidents', { affected_users_count: 1.5 }],
      ['incidents', { affected_users_count: 2 ** 31 }],
      ['incidents', { detected_at: 'yesterday' }],
      ['incidents', { assigned_to: 'me' }],
      ['runbooks', { is_automated: 2 }],
    ] as const)('names table and column of a wrong value: %s %o', async (table, values) => {
      const one = await push.client()
      const [column = ''] = Object.keys(values)
      const id = newId()
      const outcome = await one.outcomeOf(
        insert(table, { ...sampleRow(table, id, push.user.id, newRowIds()), ...values }),
      )
      expect(outcome).toMatchObject({ kind: 'rejected', reason: 'invalid_value', table, id })
      expect(outcome?.message).toContain(`${table}.${column} `)
    })

    test('of a table that nobody knows is an outcome, not an error', async () => {
      const one = await push.client()
      const request = pushRequest(one.clientId, [
        { seq: 1, id: newTransactionId(), mutations: [conversation(push.user)] },
        { seq: 2, id: newTransactionId(), mutations: [conversation(push.user)] },
      ])
      const [first] = request.shapes
      if (first === undefined) throw new Error('no shapes')
      first.table = 99
      await one.mustSend(request)
      expect((await one.outcomes()).map(({ seq, reason }) => [seq, reason])).toEqual([
        [1, 'unknown_table'],
      ])
    })
  })

  describe('of what depends on a rejected insert', () => {
    test('fails by that name, also in later pushes and through generations', async () => {
      const one = await push.client()
      const [chat, text] = [newId(), newId()]
      const bad = insert('conversations', { id: chat, user_id: push.user.id, session_id: newId() })
      const [seq] = await one.push([[bad], [conversation(push.user)]])
      await one.push([[message(chat, text)]])
      await one.push([
        [update('conversations', chat, { title: 'x' })],
        [remove('conversations', chat)],
        [update('messages', text, { feedback_rating: 1 })],
      ])
      expect((await one.outcomes()).map(({ seq: at, kind: how, on }) => [at, how, on])).toEqual([
        [seq, 'rejected', undefined],
        [3, 'dependency_failed', `${seq}.0`],
        [4, 'dependency_failed', `${seq}.0`],
        [5, 'dependency_failed', `${seq}.0`],
        [6, 'dependency_failed', '3.0'],
      ])
      expect(await push.row('messages', text)).toBeUndefined()
    })

    test('in the same push fails with it, and what does not depend passes', async () => {
      const one = await push.client()
      const [bad, good] = [newId(), newId()]
      await one.push([
        [conversation(push.user, good), message(good, newId(), { role: 'robot' })],
        [message(good)],
        [conversation(push.user, bad)],
        [message(bad)],
      ])
      expect((await one.outcomes()).map(({ seq, n, kind: how, on }) => [seq, n, how, on])).toEqual([
        [1, 0, 'dependency_failed', '1.1'],
        [1, 1, 'rejected', undefined],
        [2, 0, 'dependency_failed', '1.0'],
      ])
      expect(await push.row('conversations', bad)).toMatchObject({ message_count: 1 })
      expect(await push.row('conversations', good)).toBeUndefined()
    })

    test('in the same push fails with it, too, when the server itself refused the insert', async () => {
      const one = await push.client()
      const chat = newId()
      await one.push([
        [insert('conversations', { id: chat, user_id: push.user.id, session_id: newId() })],
        [message(chat)],
        [update('conversations', chat, { title: 'x' })],
        [conversation(push.user)],
      ])
      expect((await one.outcomes()).map(({ seq, kind: how, on }) => [seq, how, on])).toEqual([
        [1, 'rejected', undefined],
        [2, 'dependency_failed', '1.0'],
        [3, 'dependency_failed', '1.0'],
      ])
    })

    test('passes once the row was sent again and taken', async () => {
      const one = await push.client()
      const id = newId()
      await one.push([[conversation(push.user, id, 'x'.repeat(501))]])
      await one.push([[conversation(push.user, id, 'short')], [message(id)]])
      expect((await one.outcomes()).map(({ seq }) => seq)).toEqual([1])
      expect(await push.row('conversations', id)).toMatchObject({
        title: 'short',
        message_count: 1,
      })
    })
  })

  describe('of audit rows', () => {
    const audit = (id: string, values: Record<string, Stored>): WireMutation =>
      insert('audit_logs', {
        id,
        user_id: push.user.id,
        action: 'read',
        resource_type: 'test',
        ...values,
      })

    test('clamps a time of the future and keeps the claim', async () => {
      const one = await push.client()
      const [future, past] = [newId(), newId()]
      const claimed = '2049-05-06T07:08:09.000001Z'
      const before = timestampOfMicros(nowMicros() - 60_000_000)
      await one.push([
        [audit(future, { created_at: claimed, metadata: '{"request":"r1"}' })],
        [audit(past, { created_at: before })],
      ])
      expect(await one.outcomes()).toEqual([])
      const kept = await push.row('audit_logs', future)
      expect(kept?.['metadata']).toEqual({ request: 'r1', claimed_created_at: claimed })
      const at = String(kept?.['created_at'])
      expect(at > before && at <= timestampOfMicros(nowMicros() + 1_000_000)).toBe(true)
      expect(await push.row('audit_logs', past)).toMatchObject({ created_at: before, metadata: {} })
    })

    test('refuses those of another user and of nobody', async () => {
      const one = await push.client()
      const other = await createUser(push.centre)
      const [a, b] = [newId(), newId()]
      const created = timestampOfMicros(nowMicros() - 1_000_000)
      await one.push([
        [audit(a, { user_id: other.id, created_at: created })],
        [audit(b, { user_id: null, created_at: created })],
      ])
      expect(await one.outcomes()).toMatchObject([
        { seq: 1, kind: 'rejected', reason: 'forbidden' },
        { seq: 2, kind: 'rejected', reason: 'forbidden' },
      ])
      expect(await push.rows('audit_logs', [a, b])).toEqual([])
    })

    test('never changes or deletes one, not even one’s own', async () => {
      const one = await push.client()
      const id = newId()
      await one.push([[audit(id, { created_at: timestampOfMicros(nowMicros() - 1_000_000) })]])
      await one.push([[update('audit_logs', id, { description: 'x' })], [remove('audit_logs', id)]])
      expect((await one.outcomes()).map(({ reason }) => reason)).toEqual(['forbidden', 'forbidden'])
      expect(await push.row('audit_logs', id)).toMatchObject({ description: null })
    })

    test('brings none back to any agent', async () => {
      const one = await push.client()
      const { cursor } = await one.pull()
      await one.push([[audit(newId(), { created_at: timestampOfMicros(nowMicros() - 1_000_000) })]])
      for (const pull of [await one.pull(), await one.pull(cursor)])
        expect(rowsByTable(pull).get('audit_logs')).toEqual([])
    })
  })
})
