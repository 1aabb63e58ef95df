import { sql } from 'kysely'
import { Client } from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Stored } from '../../schema/codec.ts'
import type { TableName } from '../../schema/tables.ts'
import { newId } from '../../schema/values/id.ts'
import { timestampOfMicros } from '../../schema/values/timestamp.ts'
import {
  createUser,
  databaseKinds,
  openAgent,
  startCentreOn,
  type Centre,
  type TestUser,
} from '../support/centre.ts'
import { newRowIds, sampleRow } from '../support/sample-rows.ts'
import {
  insert,
  newTransactionId,
  nowMicros,
  pushRequest,
  remove,
  rowsByTable,
  update,
  wireClient,
  type WireClient,
  type WireMutation,
} from '../support/wire-client.ts'

const conversation = (user: TestUser, id = newId(), title = 't'): WireMutation =>
  insert('conversations', { id, user_id: user.id, title })

const message = (
  conversationId: string,
  id = newId(),
  values: Record<string, Stored> = {},
): WireMutation =>
  insert('messages', {
    id,
    conversation_id: conversationId,
    role: 'user',
    content: 'm',
    sequence_number: 1,
    ...values,
  })

const incident = (id = newId(), values: Record<string, Stored> = {}): WireMutation =>
  insert('incidents', { id, title: 't', severity: 'low', source: 's', ...values })

const workflow = (user: TestUser, name: string, id = newId()): WireMutation =>
  insert('workflows', { id, user_id: user.id, name, version: 1, definition: '{}' })

const runbook = (name: string, id = newId()): WireMutation =>
  insert('runbooks', { id, name, version: 1, steps: '[]' })

describe.each(databaseKinds)('push on %s', (kind) => {
  let centre: Centre
  let user: TestUser

  beforeAll(async () => {
    centre = await startCentreOn(kind)
    user = await createUser(centre, { role: 'admin' })
  })

  afterAll(async () => {
    await centre[Symbol.asyncDispose]()
  })

  async function rows(
    table: TableName,
    ids: readonly string[],
  ): Promise<Record<string, unknown>[]> {
    return centre.db.selectFrom(table).selectAll().where('id', 'in', ids).orderBy('id').execute()
  }

  async function row(table: TableName, id: string): Promise<Record<string, unknown> | undefined> {
    return (await rows(table, [id]))[0]
  }

  const client = (of = user): Promise<WireClient> => wireClient(centre, of)

  describe('that is repeated', () => {
    test('takes effect once, however often and however many at a time it comes', async () => {
      const one = await client()
      const [chat, text] = [newId(), newId()]
      const request = pushRequest(one.clientId, [
        { seq: 1, id: newTransactionId(), mutations: [conversation(user, chat)] },
        { seq: 2, id: newTransactionId(), mutations: [message(chat, text)] },
        { seq: 3, id: newTransactionId(), mutations: [message(newId())] },
      ])
      const answers = await Promise.all([1, 2, 3, 4].map(() => one.mustSend(request)))
      answers.push(await one.mustSend(request))
      expect(answers).toEqual(Array.from({ length: 5 }, () => ({ nextSeq: 4 })))
      expect(await row('conversations', chat)).toMatchObject({ message_count: 1 })
      expect(await row('messages', text)).toBeDefined()
      const pull = await one.pull()
      expect(pull.outcomes.map(({ seq, kind: how }) => [seq, how])).toEqual([[3, 'rejected']])
      expect(pull.watermark?.seq).toBe(3)
    })

    test('after its answer was lost goes on where it ended', async () => {
      const one = await client()
      const chat = newId()
      const all = Array.from({ length: 6 }, (_, i) => ({
        seq: i + 1,
        id: newTransactionId(),
        mutations: [i === 0 ? conversation(user, chat) : message(chat)],
      }))
      await one.mustSend(pushRequest(one.clientId, all.slice(0, 4)))
      expect(await one.mustSend(pushRequest(one.clientId, all))).toEqual({ nextSeq: 7 })
      expect(await row('conversations', chat)).toMatchObject({ message_count: 5 })
      // All of it was applied before: known by the ids, not by the number alone.
      expect(await one.mustSend(pushRequest(one.clientId, all.slice(0, 2)))).toEqual({ nextSeq: 7 })
      expect(await row('conversations', chat)).toMatchObject({ message_count: 5 })
    })

    test('with a gap is refused, and what is before the gap is not taken', async () => {
      const one = await client()
      const [a, b] = [newId(), newId()]
      const within = await one.mustFail(
        pushRequest(one.clientId, [
          { seq: 1, id: newTransactionId(), mutations: [conversation(user, a)] },
          { seq: 3, id: newTransactionId(), mutations: [conversation(user, b)] },
        ]),
      )
      expect(within).toMatchObject({ status: 400, code: 'PROTOCOL' })
      expect(within.message).toContain('transactions.1.seq')
      const ahead = await one.mustFail(
        pushRequest(one.clientId, [
          { seq: 2, id: newTransactionId(), mutations: [conversation(user, b)] },
        ]),
      )
      expect(ahead).toMatchObject({ status: 409, code: 'FORKED' })
      expect(await rows('conversations', [a, b])).toEqual([])
      expect((await one.pull()).watermark).toBeNull()
    })

    test('under numbers that other work had is a fork, and nothing of it is swallowed or applied', async () => {
      const one = await client()
      await one.push([[conversation(user)], [conversation(user)]])
      const { last } = one
      const id = newId()
      const forks = [
        // The file was restored: seq 2 is other work now.
        pushRequest(one.clientId, [
          { seq: 2, id: newTransactionId(), mutations: [conversation(user, id)] },
        ]),
        // It was copied: what came before is not what the centre has.
        pushRequest(
          one.clientId,
          [{ seq: 3, id: newTransactionId(), mutations: [conversation(user, id)] }],
          { seq: 2, id: newTransactionId() },
        ),
        pushRequest(one.clientId, [
          { seq: 1, id: newTransactionId(), mutations: [conversation(user, id)] },
        ]),
      ]
      for (const fork of forks)
        expect(await one.mustFail(fork)).toMatchObject({ status: 409, code: 'FORKED' })
      expect(await row('conversations', id)).toBeUndefined()
      expect((await one.pull()).watermark).toEqual(last)
    })
  })

  test('rows, watermark and outcomes come in one batch', async () => {
    const one = await client()
    const { cursor } = await one.pull()
    const [good, bad] = [newId(), newId()]
    await one.push([[conversation(user, good)], [conversation(user, bad, 'x'.repeat(501))]])
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
      const one = await client()
      const chat = newId()
      await one.push([[conversation(user, chat)]])
      const ids = Array.from({ length: 300 }, () => [newId(), newId()] as const)
      const culprits = new Set([0, 137, 138, 299])
      const seqs = await one.push(
        ids.map(([a, b], i) => [
          message(chat, a),
          message(chat, b, culprits.has(i) ? { ...bad } : {}),
        ]),
      )
      const there = new Set((await rows('messages', ids.flat())).map(({ id }) => id))
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
      expect(await row('conversations', chat)).toMatchObject({
        message_count: 2 * (300 - culprits.size),
      })
    })

    test('names the constraint and the state of the database', async () => {
      const one = await client()
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
      await one.push([[conversation(user, chat)]])
      const required = await one.outcomeOf(
        insert('messages', { id: newId(), conversation_id: chat, role: 'user' }),
      )
      expect(required).toMatchObject({ kind: 'rejected', reason: 'not_null', sqlstate: '23502' })
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
      const one = await client()
      const [column = ''] = Object.keys(values)
      const id = newId()
      const outcome = await one.outcomeOf(
        insert(table, { ...sampleRow(table, id, user.id, newRowIds()), ...values }),
      )
      expect(outcome).toMatchObject({ kind: 'rejected', reason: 'invalid_value', table, id })
      expect(outcome?.message).toContain(`${table}.${column} `)
    })

    test('of a table or shape that nobody knows is an outcome, not an error', async () => {
      const one = await client()
      const request = pushRequest(one.clientId, [
        { seq: 1, id: newTransactionId(), mutations: [conversation(user)] },
        { seq: 2, id: newTransactionId(), mutations: [conversation(user)] },
        { seq: 3, id: newTransactionId(), mutations: [conversation(user)] },
      ])
      const [first, second] = request.shapes
      if (first === undefined || second === undefined) throw new Error('no shapes')
      first.table = 99
      const [, two] = request.transactions
      if (two?.mutations[0] !== undefined) two.mutations[0][0] = 400
      await one.mustSend(request)
      expect((await one.outcomes()).map(({ seq, reason }) => [seq, reason])).toEqual([
        [1, 'unknown_table'],
        [2, 'unknown_table'],
      ])
    })
  })

  describe('of what depends on a rejected insert', () => {
    test('fails by that name, also in later pushes and through generations', async () => {
      const one = await client()
      const [chat, text] = [newId(), newId()]
      const bad = insert('conversations', { id: chat, user_id: user.id, session_id: newId() })
      const [seq] = await one.push([[bad], [conversation(user)]])
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
      expect(await row('messages', text)).toBeUndefined()
    })

    test('in the same push fails with it, and what does not depend passes', async () => {
      const one = await client()
      const [bad, good] = [newId(), newId()]
      await one.push([
        [conversation(user, good), message(good, newId(), { role: 'robot' })],
        [message(good)],
        [conversation(user, bad)],
        [message(bad)],
      ])
      expect((await one.outcomes()).map(({ seq, n, kind: how, on }) => [seq, n, how, on])).toEqual([
        [1, 0, 'dependency_failed', '1.1'],
        [1, 1, 'rejected', undefined],
        [2, 0, 'dependency_failed', '1.0'],
      ])
      expect(await row('conversations', bad)).toMatchObject({ message_count: 1 })
      expect(await row('conversations', good)).toBeUndefined()
    })

    test('in the same push fails with it, too, when the server itself refused the insert', async () => {
      const one = await client()
      const chat = newId()
      await one.push([
        [insert('conversations', { id: chat, user_id: user.id, session_id: newId() })],
        [message(chat)],
        [update('conversations', chat, { title: 'x' })],
        [conversation(user)],
      ])
      expect((await one.outcomes()).map(({ seq, kind: how, on }) => [seq, how, on])).toEqual([
        [1, 'rejected', undefined],
        [2, 'dependency_failed', '1.0'],
        [3, 'dependency_failed', '1.0'],
      ])
    })

    test('passes once the row was sent again and taken', async () => {
      const one = await client()
      const id = newId()
      await one.push([[conversation(user, id, 'x'.repeat(501))]])
      await one.push([[conversation(user, id, 'short')], [message(id)]])
      expect((await one.outcomes()).map(({ seq }) => seq)).toEqual([1])
      expect(await row('conversations', id)).toMatchObject({ title: 'short', message_count: 1 })
    })
  })

  describe('to a row that was deleted', () => {
    test('is rejected as such, whatever it wants, and the row stays away', async () => {
      const [one, two] = [await client(), await client()]
      const chat = newId()
      await one.push([[conversation(user, chat)], [message(chat)]])
      await one.push([[remove('conversations', chat)]])
      await two.push([
        [update('conversations', chat, { title: 'x' })],
        [message(chat)],
        [conversation(user, chat)],
        [remove('conversations', chat)],
      ])
      expect(await two.outcomes()).toMatchObject([
        { seq: 1, kind: 'rejected', reason: 'deleted' },
        { seq: 2, kind: 'rejected', reason: 'deleted', sqlstate: '23503' },
        { seq: 3, kind: 'rejected', reason: 'deleted' },
      ])
      expect(await row('conversations', chat)).toBeUndefined()
      const left = await centre.db
        .selectFrom('messages')
        .select('id')
        .where('conversation_id', '=', chat)
        .execute()
      expect(left).toEqual([])
    })

    test('in the same push is rejected as well', async () => {
      const one = await client()
      const chat = newId()
      await one.push([[conversation(user, chat)]])
      await one.push([
        [remove('conversations', chat)],
        [message(chat)],
        [update('conversations', chat, { title: 'x' })],
      ])
      expect((await one.outcomes()).map(({ seq, reason }) => [seq, reason])).toEqual([
        [3, 'deleted'],
        [4, 'deleted'],
      ])
    })
  })

  describe('that clashes on a unique key', () => {
    test('of a workflow gets the next version and keeps its id, so that its children stay right', async () => {
      const [one, two] = [await client(), await client()]
      const [a, b, run] = [newId(), newId(), newId()]
      await one.push([[workflow(user, 'Deploy', a)]])
      await two.push([
        [workflow(user, 'Deploy', b)],
        [insert('workflow_executions', { id: run, workflow_id: b, user_id: user.id })],
      ])
      expect(await two.outcomes()).toMatchObject([
        { seq: 1, kind: 'merged', reason: 'next_version', id: b, changed: { version: 2 } },
      ])
      expect(await row('workflows', b)).toMatchObject({ name: 'Deploy', version: 2 })
      expect(await row('workflow_executions', run)).toMatchObject({ workflow_id: b })
    })

    test('of a workflow that several agents make at once gives each its own version', async () => {
      const clients = await Promise.all([1, 2, 3, 4].map(() => client()))
      const name = `Race ${newId()}`
      const ids = clients.map(() => [newId(), newId(), newId()])
      await Promise.all(
        clients.map((one, i) => one.push((ids[i] ?? []).map((id) => [workflow(user, name, id)]))),
      )
      const made = await rows('workflows', ids.flat())
      expect(made.map(({ version }) => Number(version)).toSorted((a, b) => a - b)).toEqual(
        Array.from({ length: 12 }, (_, i) => i + 1),
      )
      for (const one of clients) {
        for (const outcome of await one.outcomes())
          expect(outcome).toMatchObject({ kind: 'merged', reason: 'next_version' })
      }
    })

    test('of a workflow by renaming it gets the next version, too', async () => {
      const one = await client()
      const [a, b] = [newId(), newId()]
      const [x, y] = [`X ${newId()}`, `Y ${newId()}`]
      await one.push([[workflow(user, x, a)], [workflow(user, y, b)]])
      const outcome = await one.outcomeOf(update('workflows', b, { name: x }))
      expect(outcome).toMatchObject({
        kind: 'merged',
        reason: 'next_version',
        changed: { version: 2 },
      })
      expect(await row('workflows', b)).toMatchObject({ name: x, version: 2 })
    })

    test('of a runbook is rejected with the name of the constraint, before or in the same push', async () => {
      const one = await client()
      const name = `Runbook ${newId()}`
      const [first, second, third] = [newId(), newId(), newId()]
      await one.push([
        [runbook(name, first)],
        [runbook(name, second)],
        [runbook(`${name} 2`, third)],
      ])
      await one.push([[runbook(name)]])
      const expected = {
        kind: 'rejected',
        reason: 'unique',
        sqlstate: '23505',
        constraint: 'runbooks_name_key',
      }
      expect(await one.outcomes()).toMatchObject([
        { seq: 2, id: second, ...expected },
        { seq: 4, ...expected },
      ])
      expect((await rows('runbooks', [first, second, third])).map(({ id }) => id)).toEqual([
        first,
        third,
      ])
    })

    test('only while it is carried out passes: names that are exchanged or used again', async () => {
      const one = await client()
      const [x, y] = [`X ${newId()}`, `Y ${newId()}`]
      const [a, b, c] = [newId(), newId(), newId()]
      await one.push([[runbook(x, a)], [runbook(y, b)]])
      await one.push([
        [
          update('runbooks', a, { name: `${x} aside` }),
          update('runbooks', b, { name: x }),
          update('runbooks', a, { name: y }),
        ],
        [remove('runbooks', b), runbook(x, c)],
      ])
      expect(await one.outcomes()).toEqual([])
      const names = (await rows('runbooks', [a, b, c])).map(({ id, name }) => [id, name] as const)
      expect(new Map(names)).toEqual(
        new Map([
          [a, y],
          [c, x],
        ]),
      )
    })

    test('on its id is rejected by the name of the key', async () => {
      const one = await client()
      const id = newId()
      await one.push([[incident(id)], [incident(id)]])
      await one.push([[incident(id)]])
      const expected = { reason: 'unique', sqlstate: '23505', constraint: 'incidents_pkey' }
      expect(await one.outcomes()).toMatchObject([
        { seq: 2, ...expected },
        { seq: 3, ...expected },
      ])
    })
  })

  describe('with clocks', () => {
    test('of the future is held down to the time it came, so that it cannot win for ever', async () => {
      const [one, two] = [await client(), await client()]
      const id = newId()
      await one.push([[incident(id)]])
      const { nonce, position } = await two.pull()
      const base = { nonce, position }
      const yearMicros = 365 * 24 * 3600 * 1_000_000
      await one.push([[update('incidents', id, { title: 'from next year' })]], {
        base,
        clock: nowMicros() + yearMicros,
      })
      const stamps = await sql<{ clock: number }>`SELECT (cols -> 'title' ->> 1)::bigint AS clock
        FROM sync.row_meta WHERE id = ${id}`.execute(centre.db)
      expect(stamps.rows[0]?.clock).toBeLessThanOrEqual(nowMicros() + 1_000_000)
      // This machine's clock has milliseconds here and microseconds there.
      const later = Math.max(nowMicros(), (stamps.rows[0]?.clock ?? 0) + 1)
      await two.push([[update('incidents', id, { title: 'from now' })]], { base, clock: later })
      const [outcome] = await two.outcomes()
      expect(outcome).toMatchObject({ kind: 'merged' })
      expect(await row('incidents', id)).toMatchObject({ title: 'from now' })
    })

    test('decides the same column the same way in either order, and keeps what lost', async () => {
      for (const laterFirst of [true, false]) {
        const [one, two] = [await client(), await client()]
        const id = newId()
        await one.push([[incident(id)]])
        const { nonce, position } = await two.pull()
        const base = { nonce, position }
        const clock = nowMicros() - 60_000_000
        const pushes = [
          () =>
            one.push([[update('incidents', id, { title: 'later', root_cause: 'one' })]], {
              base,
              clock: clock + 1000,
            }),
          () =>
            two.push([[update('incidents', id, { title: 'earlier', resolution_notes: 'two' })]], {
              base,
              clock,
            }),
        ]
        for (const push of laterFirst ? pushes : pushes.toReversed()) await push()
        expect(await row('incidents', id)).toMatchObject({
          title: 'later',
          root_cause: 'one',
          resolution_notes: 'two',
        })
        const { conflicts } = await one.pull()
        expect(conflicts.filter(({ rowId }) => rowId === id)).toMatchObject([
          {
            table: 'incidents',
            loser: two.clientId,
            winner: one.clientId,
            lost: { title: 'earlier' },
            kept: { title: 'later' },
          },
        ])
      }
    })
  })

  describe('of audit rows', () => {
    const audit = (id: string, values: Record<string, Stored>): WireMutation =>
      insert('audit_logs', {
        id,
        user_id: user.id,
        action: 'read',
        resource_type: 'test',
        ...values,
      })

    test('clamps a time of the future and keeps the claim', async () => {
      const one = await client()
      const [future, past] = [newId(), newId()]
      const claimed = '2049-05-06T07:08:09.000001Z'
      const before = timestampOfMicros(nowMicros() - 60_000_000)
      await one.push([
        [audit(future, { created_at: claimed, metadata: '{"request":"r1"}' })],
        [audit(past, { created_at: before })],
      ])
      expect(await one.outcomes()).toEqual([])
      const kept = await row('audit_logs', future)
      expect(kept?.['metadata']).toEqual({ request: 'r1', claimed_created_at: claimed })
      const at = String(kept?.['created_at'])
      expect(at > before && at <= timestampOfMicros(nowMicros() + 1_000_000)).toBe(true)
      expect(await row('audit_logs', past)).toMatchObject({ created_at: before, metadata: {} })
    })

    test('refuses those of another user and of nobody', async () => {
      const one = await client()
      const other = await createUser(centre)
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
      expect(await rows('audit_logs', [a, b])).toEqual([])
    })

    test('never changes or deletes one, not even one’s own', async () => {
      const one = await client()
      const id = newId()
      await one.push([[audit(id, { created_at: timestampOfMicros(nowMicros() - 1_000_000) })]])
      await one.push([[update('audit_logs', id, { description: 'x' })], [remove('audit_logs', id)]])
      expect((await one.outcomes()).map(({ reason }) => reason)).toEqual(['forbidden', 'forbidden'])
      expect(await row('audit_logs', id)).toMatchObject({ description: null })
    })

    test('brings none back to any agent', async () => {
      const one = await client()
      const { cursor } = await one.pull()
      await one.push([[audit(newId(), { created_at: timestampOfMicros(nowMicros() - 1_000_000) })]])
      for (const pull of [await one.pull(), await one.pull(cursor)])
        expect(rowsByTable(pull).get('audit_logs')).toEqual([])
    })
  })

  describe('of several agents on the same rows at once', () => {
    const owned = ['title', 'description', 'root_cause', 'resolution_notes'] as const

    test('in opposite orders loses no update', async () => {
      const clients = await Promise.all(owned.map(() => client()))
      const setup = await client()
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
      for (const found of await rows('incidents', ids))
        expect(owned.map((column) => found[column])).toEqual(owned.map(() => `round ${rounds}`))
      for (const one of clients)
        for (const outcome of await one.outcomes()) expect(outcome.kind).toBe('merged')
    })

    test('counts every message of a conversation', async () => {
      const clients = await Promise.all([1, 2, 3, 4].map(() => client()))
      const setup = await client()
      const [a, b] = [newId(), newId()]
      await setup.push([[conversation(user, a)], [conversation(user, b)]])
      await Promise.all(
        clients.map(async (one, who) => {
          const order = who % 2 === 0 ? [a, b] : [b, a]
          for (let round = 0; round < 5; round++)
            await one.push(order.map((id) => [message(id), message(id)]))
        }),
      )
      for (const id of [a, b]) {
        const there = await centre.db
          .selectFrom('messages')
          .select('id')
          .where('conversation_id', '=', id)
          .execute()
        expect(there).toHaveLength(40)
        expect(await row('conversations', id)).toMatchObject({ message_count: 40 })
      }
    })

    test('deletes and inserts of children end without a child that has no parent or no word of it', async () => {
      const [deleter, writer] = [await client(), await client()]
      const chats = Array.from({ length: 15 }, () => newId())
      await deleter.push(chats.map((id) => [conversation(user, id)]))
      const texts = chats.map(() => newId())
      await Promise.all([
        (async () => {
          for (const id of chats) await deleter.push([[remove('conversations', id)]])
        })(),
        (async () => {
          for (const [i, id] of chats.entries()) await writer.push([[message(id, texts[i])]])
        })(),
      ])
      expect(await rows('conversations', chats)).toEqual([])
      expect(await rows('messages', texts)).toEqual([])
      const outcomes = await writer.outcomes()
      const tombstones = await sql<{ id: string }>`SELECT id FROM sync.log
        WHERE op = 'delete' AND id = ANY(${texts})`.execute(centre.db)
      const told = new Set([
        ...outcomes.map(({ id }) => id),
        ...tombstones.rows.map(({ id }) => id),
      ])
      expect(told).toEqual(new Set(texts))
    })
  })

  test('two agents with real stores that make the same workflow both keep their own', async () => {
    await using a = await openAgent(centre, user)
    await using b = await openAgent(centre, user)
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
  let centre: Centre
  let user: TestUser
  let other: Client

  beforeAll(async () => {
    centre = await startCentreOn('postgres')
    user = await createUser(centre, { role: 'admin' })
    other = new Client({ connectionString: centre.databaseUrl })
    await other.connect()
  })

  afterAll(async () => {
    await other.end()
    await centre[Symbol.asyncDispose]()
  })

  /** Resolves when some session of this database waits for a row that another has locked. */
  async function untilSomeoneWaits(): Promise<void> {
    for (;;) {
      const { rowCount } = await other.query(
        `SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`,
      )
      if (rowCount !== 0) return
      // Inside a transaction the view of the statistics is frozen; this looks anew.
      await other.query('SELECT pg_stat_clear_snapshot()')
    }
  }

  test('a child whose parent is being deleted waits, then hears that it was deleted', async () => {
    const one = await wireClient(centre, user)
    const [chat, text] = [newId(), newId()]
    await one.push([[conversation(user, chat)]])
    await other.query('BEGIN')
    await other.query('DELETE FROM conversations WHERE id = $1', [chat])
    const pushed = one.push([[message(chat, text)], [conversation(user)]])
    await untilSomeoneWaits()
    await other.query('COMMIT')
    await pushed
    expect(await one.outcomes()).toMatchObject([
      { seq: 2, kind: 'rejected', reason: 'deleted', id: text },
    ])
  })

  test('a delete waits for a child that is being made, and takes it along with a word of it', async () => {
    const one = await wireClient(centre, user)
    const [chat, text] = [newId(), newId()]
    await one.push([[conversation(user, chat)]])
    const { cursor } = await one.pull()
    await other.query('BEGIN')
    await other.query(
      `INSERT INTO messages (id, conversation_id, role, content, sequence_number) VALUES ($1, $2, 'user', 'm', 1)`,
      [text, chat],
    )
    const pushed = one.push([[remove('conversations', chat)]])
    await untilSomeoneWaits()
    await other.query('COMMIT')
    await pushed
    const { rows: left } = await other.query('SELECT id FROM messages WHERE id = $1', [text])
    expect(left).toEqual([])
    const { gone } = await one.pull(cursor)
    expect(gone.map(([, id]) => id).toSorted()).toEqual([chat, text].toSorted())
  })

  test('an update of a row that is being changed waits, then merges with what came of it', async () => {
    const one = await wireClient(centre, user)
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

  test('a deadlock with somebody is tried again until it passes', async () => {
    const one = await wireClient(centre, user)
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
