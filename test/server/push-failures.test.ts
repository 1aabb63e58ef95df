import { sql } from 'kysely'
import { Client } from 'pg'
import { describe, expect, inject, test } from 'vitest'
import { newId } from '../../schema/values/id.ts'
import { RepeatedFailures } from '../../server/sync/push/repeated-failures.ts'
import type { PushRequest } from '../../sync/protocol/messages.ts'
import {
  createUser,
  databaseKinds,
  openAgent,
  startCentre,
  type Centre,
} from '../support/centre.ts'
import { createDatabase } from '../support/databases.ts'
import { conversation, incident, message, setUpPush } from '../support/push.ts'
import {
  insert,
  newTransactionId,
  pushRequest,
  update,
  wireClient,
  type WireClient,
  type WireMutation,
} from '../support/wire-client.ts'

/** Failures after which the server gives a transaction up. */
const FAILURES_MAX = 5

/** The failures are wanted; the operator need not hear of them. */
const quiet = { onError: () => undefined }

/** Makes the centre fail on rows whose title is like the pattern, until it is disposed of. */
async function failOn(
  { db }: Centre,
  tables: readonly ('incidents' | 'conversations')[],
  pattern: string,
  statement: string,
): Promise<AsyncDisposable> {
  const name = `fail_${newId().replaceAll('-', '')}`
  await sql
    .raw(
      `CREATE FUNCTION ${name}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
      $$ BEGIN IF NEW.title LIKE '${pattern}' THEN ${statement}; END IF; RETURN NEW; END $$`,
    )
    .execute(db)
  for (const table of tables) {
    await sql
      .raw(
        `CREATE TRIGGER ${name} BEFORE INSERT OR UPDATE ON ${table} FOR EACH ROW EXECUTE FUNCTION ${name}()`,
      )
      .execute(db)
  }
  return {
    async [Symbol.asyncDispose]() {
      await sql.raw(`DROP FUNCTION ${name} CASCADE`).execute(db)
    },
  }
}

const raise = (code: string): string =>
  `RAISE EXCEPTION 'failure of a test' USING ERRCODE = '${code}'`

/** A client's queue as one push; it can be sent any number of times. */
const queueOf = (
  { clientId }: WireClient,
  transactions: readonly (readonly WireMutation[])[],
): PushRequest =>
  pushRequest(
    clientId,
    transactions.map((mutations, i) => ({ seq: i + 1, id: newTransactionId(), mutations })),
  )

describe.each(databaseKinds)('push on %s', (kind) => {
  const push = setUpPush(kind, quiet)
  // PGlite has one session, and so no transactions that are in each other's way.
  const codes = kind === 'postgres' ? ['40001', '57014', 'XX000'] : ['XX000']

  describe('of a transaction on which the database fails time and again', () => {
    test.each(codes)(
      'costs only itself, once others passed between all its failures: %s',
      async (code) => {
        const [one, other] = [await push.client(), await push.client()]
        const poison = `poison ${newId()}`
        await using _ = await failOn(push.centre, ['incidents'], poison, raise(code))
        const [before, bad, after, child] = [newId(), newId(), newId(), newId()]
        const siblings = [newId(), newId()]
        const queue = queueOf(one, [
          [incident(before)],
          [
            conversation(push.user, siblings[0]),
            incident(bad, { title: poison }),
            message(siblings[0] ?? '', siblings[1]),
          ],
          [incident(after)],
          [message(siblings[0] ?? '', child)],
        ])
        const statuses: number[] = []
        for (let failures = 1; failures <= FAILURES_MAX; failures++) {
          const { status } = await one.send(queue)
          statuses.push(status)
          expect(await push.row('incidents', before)).toBeDefined()
          expect((await push.row('incidents', after)) === undefined).toBe(status !== 200)
          await other.push([[incident()]])
        }
        expect(statuses).toEqual([...Array.from({ length: FAILURES_MAX - 1 }, () => 500), 200])
        const sibling = { seq: 2, kind: 'dependency_failed', on: '2.1', reason: 'sibling' }
        expect(await one.outcomes()).toMatchObject([
          { n: 0, ...sibling, id: siblings[0] },
          { seq: 2, n: 1, kind: 'rejected', reason: 'unprocessable', sqlstate: code, id: bad },
          { n: 2, ...sibling, id: siblings[1] },
          { seq: 4, n: 0, kind: 'dependency_failed', on: '2.0', id: child },
        ])
        expect(await push.rows('incidents', [before, bad, after])).toHaveLength(2)
        expect(await push.row('conversations', siblings[0] ?? '')).toBeUndefined()
        expect(await push.rows('messages', [child, ...siblings])).toEqual([])
        expect((await one.pull()).watermark?.seq).toBe(4)
      },
    )

    test('waits for ever while nothing of others passes, and then is applied', async () => {
      const clients = [await push.client(), await push.client()]
      const refused = await push.client()
      const ids = clients.map(() => newId())
      const queues = clients.map((one, i) =>
        queueOf(one, [[incident(ids[i])], [conversation(push.user)]]),
      )
      {
        await using _ = await failOn(
          push.centre,
          ['incidents', 'conversations'],
          '%',
          raise('XX000'),
        )
        for (let round = 0; round < 3 * FAILURES_MAX; round++) {
          for (const [i, one] of clients.entries()) {
            const { status } = await one.send(queues[i] ?? queueOf(one, []))
            expect(status).toBe(500)
          }
          // What is only refused passes, but says nothing of whether the database is well.
          await refused.push([[message(newId())]])
        }
        for (const one of clients) expect((await one.pull()).watermark).toBeNull()
      }
      for (const [i, one] of clients.entries()) {
        await one.mustSend(queues[i] ?? queueOf(one, []))
        expect(await one.outcomes()).toEqual([])
      }
      expect(await push.rows('incidents', ids)).toHaveLength(ids.length)
    })

    test('goes to the conflicts of an agent with a real store, whose later work passes', async () => {
      const other = await push.client()
      const poison = `poison ${newId()}`
      await using _ = await failOn(push.centre, ['incidents'], poison, raise('XX000'))
      await using agent = await openAgent(push.centre, push.user)
      const fields = { severity: 'low', source: 's' } as const
      const bad = agent.db.incidents.create({ title: poison, ...fields })
      const good = agent.db.incidents.create({ title: 'good', ...fields })
      for (let failures = 1; failures < FAILURES_MAX; failures++) {
        await expect(agent.sync.now()).rejects.toMatchObject({ code: 'SERVER_ERROR' })
        expect(agent.db.incidents.find(bad.id)).toBeDefined()
        await other.push([[incident()]])
      }
      await agent.sync.now()
      expect(agent.outcomes).toMatchObject([
        { kind: 'rejected', reason: 'unprocessable', table: 'incidents', id: bad.id },
        { kind: 'applied', id: good.id },
      ])
      expect(agent.db.incidents.find(bad.id)).toBeUndefined()
      expect(agent.db.incidents.find(good.id)).toMatchObject({ title: 'good' })
      expect(await push.row('incidents', good.id)).toBeDefined()
    })

    test('of an update names it, and leaves the row as it was', async () => {
      const [one, other] = [await push.client(), await push.client()]
      const id = newId()
      await other.push([[incident(id)]])
      const poison = `poison ${newId()}`
      await using _ = await failOn(push.centre, ['incidents'], poison, raise('53200'))
      const queue = queueOf(one, [
        [
          update('incidents', id, { root_cause: 'r' }),
          update('incidents', id, { title: poison }),
          insert('runbooks', { id: newId(), name: newId(), version: 1, steps: '[]' }),
        ],
      ])
      for (let failures = 1; failures < FAILURES_MAX; failures++) {
        expect(await one.mustFail(queue)).toMatchObject({ code: 'SERVER_ERROR' })
        await other.push([[incident()]])
      }
      await one.mustSend(queue)
      const [, culprit] = await one.outcomes()
      expect(culprit).toMatchObject({
        n: 1,
        reason: 'unprocessable',
        server_row: { id, title: 't', root_cause: null },
      })
      expect(culprit?.message).not.toContain('failure of a test')
      expect(await push.row('incidents', id)).toMatchObject({ title: 't', root_cause: null })
    })
  })
})

describe('push on a database whose connections break', () => {
  const push = setUpPush('postgres', quiet)

  test('never gives a transaction up for that, whatever passes meanwhile', async () => {
    const [one, other] = [await push.client(), await push.client()]
    const poison = `poison ${newId()}`
    const id = newId()
    const queue = queueOf(one, [[incident(id, { title: poison })]])
    {
      const end = 'PERFORM pg_terminate_backend(pg_backend_pid())'
      await using _ = await failOn(push.centre, ['incidents'], poison, end)
      for (let round = 0; round < FAILURES_MAX + 2; round++) {
        expect(await one.mustFail(queue)).toMatchObject({ code: 'DATABASE_UNREACHABLE' })
        await other.push([[incident()]])
      }
    }
    await one.mustSend(queue)
    expect(await one.outcomes()).toEqual([])
    expect(await push.row('incidents', id)).toMatchObject({ title: poison })
  })
})

test('push that waits in vain for a lock of somebody costs only what wants the lock', async () => {
  await using database = await createDatabase(inject('postgresUrl'), 'locked')
  const databaseUrl = `${database.url}?options=${encodeURIComponent('-c lock_timeout=20ms')}`
  await using centre = await startCentre({ databaseUrl, ...quiet })
  const user = await createUser(centre, { role: 'admin' })
  const [one, other] = [await wireClient(centre, user), await wireClient(centre, user)]
  const [held, after] = [newId(), newId()]
  await other.push([[incident(held)]])
  const holder = new Client({ connectionString: database.url })
  await holder.connect()
  await holder.query('BEGIN')
  await holder.query('SELECT 1 FROM incidents WHERE id = $1 FOR UPDATE', [held])
  const queue = queueOf(one, [[update('incidents', held, { title: 'x' })], [incident(after)]])
  for (let failures = 1; failures < FAILURES_MAX; failures++) {
    expect(await one.mustFail(queue)).toMatchObject({ code: 'SERVER_ERROR' })
    await other.push([[incident()]])
  }
  await one.mustSend(queue)
  await holder.end()
  expect(await one.outcomes()).toMatchObject([
    { seq: 1, kind: 'rejected', reason: 'unprocessable', sqlstate: '55P03' },
  ])
  const found = await centre.db
    .selectFrom('incidents')
    .select('title')
    .where('id', 'in', [held, after])
    .execute()
  expect(found.map(({ title }) => title)).toEqual(['t', 't'])
})

test('the transactions that failed are remembered up to a limit, those that failed last', () => {
  const failures = new RepeatedFailures()
  failures.failed('first')
  failures.failed('second')
  failures.failed('first')
  for (let i = 0; i < 9_999; i++) failures.failed(`other ${i}`)
  expect([failures.has('first'), failures.has('second')]).toEqual([true, false])
  failures.passed(['first'], true)
  expect(failures.has('first')).toBe(false)
})
