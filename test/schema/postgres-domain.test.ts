/* oxlint-disable unicorn/consistent-function-scoping -- a helper stands beside the tests that it helps */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { enums } from '../../schema/enums.ts'
import { newId } from '../../schema/values/id.ts'
import { microsOfTimestamp } from '../../schema/values/timestamp.ts'
import type { Session } from '../../server/postgres/database.ts'
import {
  databaseKinds,
  openMigratedCentre,
  type CentralDatabase,
} from '../support/central-database.ts'

/** PostgreSQL's words for what it refuses. */
const Sqlstate = {
  check: '23514',
  foreignKey: '23503',
  notNull: '23502',
  unique: '23505',
  invalidText: '22P02',
} as const

describe.each(databaseKinds)('the domain in %s', (kind) => {
  let centre: CentralDatabase
  beforeAll(async () => {
    centre = await openMigratedCentre(kind)
  })
  afterAll(() => centre[Symbol.asyncDispose]())

  const rows = async <T = Record<string, unknown>>(
    sql: string,
    ...values: unknown[]
  ): Promise<T[]> => (await centre.database.query<T>(sql, values)).rows

  const one = async <T = Record<string, unknown>>(
    sql: string,
    ...values: unknown[]
  ): Promise<T> => {
    const [row, ...more] = await rows<T>(sql, ...values)
    if (row === undefined || more.length > 0) throw new Error('not exactly one row')
    return row
  }

  let made = 0
  const aUser = async (more: Record<string, unknown> = {}): Promise<string> => {
    const n = ++made
    const columns: Record<string, unknown> = {
      email: `user${n}@example.com`,
      username: `user-${n}`,
      password_hash: 'secret-hash',
      status: 'active',
      ...more,
    }
    const names = Object.keys(columns)
    const { id } = await one<{ id: string }>(
      `INSERT INTO users (${names.join(', ')}) VALUES (${names.map((_, i) => `$${i + 1}`).join(', ')}) RETURNING id`,
      ...Object.values(columns),
    )
    return id
  }

  const aConversation = async (userId: string): Promise<string> =>
    (
      await one<{ id: string }>(
        'INSERT INTO conversations (user_id) VALUES ($1) RETURNING id',
        userId,
      )
    ).id

  test('a statement that fails leaves the database in order for the next one', async () => {
    for (let n = 0; n < 5; n++) {
      await expect(rows('SELECT 1 / $1::integer', 0)).rejects.toMatchObject({ code: '22012' })
      expect(await one('SELECT $1::integer AS n', n)).toEqual({ n })
    }
  })

  describe('values', () => {
    test('makes ids of version 7, in order of time', async () => {
      const [first, second] = [await aUser(), await aUser()]
      for (const id of [first, second])
        expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab]/)
      const { now } = await one<{ now: string }>('SELECT clock_timestamp() AS now')
      const idMs = Number.parseInt(first.replaceAll('-', '').slice(0, 12), 16)
      const ageMs = microsOfTimestamp(now) / 1000 - idMs
      expect(ageMs).toBeGreaterThan(-1)
      expect(ageMs).toBeLessThan(600_000)
      const many = await rows<{ id: string }>(
        'SELECT DISTINCT uuid_generate_v7() AS id FROM generate_series(1, 1000)',
      )
      expect(many).toHaveLength(1000)
    })

    test('takes each value of each enum and no other', async () => {
      for (const { name, values } of enums) {
        expect(
          await rows(`SELECT v::text AS value FROM unnest(enum_range(NULL::${name})) v`),
        ).toEqual(values.map((value) => ({ value })))
        await expect(rows(`SELECT 'nonsense'::${name}`)).rejects.toMatchObject({
          code: Sqlstate.invalidText,
        })
      }
    })

    test('fills in the defaults of the seeds', async () => {
      const user = await one(
        `INSERT INTO users (email, username, password_hash) VALUES ('defaults@example.com', 'defaults', 'x') RETURNING *`,
      )
      expect(user).toMatchObject({
        role: 'developer',
        status: 'pending',
        timezone: 'UTC',
        preferences: {},
        mfa_enabled: false,
        failed_login_attempts: 0,
        deleted_at: null,
      })
      const workflow = await one(
        `INSERT INTO workflows (user_id, name, definition) VALUES ($1, 'w', '{}') RETURNING *`,
        user['id'],
      )
      expect(workflow).toMatchObject({
        version: 1,
        is_active: true,
        is_template: false,
        tags: [],
        triggers: [],
      })
      const execution = await one(
        'INSERT INTO workflow_executions (workflow_id, user_id) VALUES ($1, $2) RETURNING *',
        workflow['id'],
        user['id'],
      )
      expect(execution).toMatchObject({ status: 'queued', steps_executed: 0, completed_steps: [] })
      expect(
        await one(
          `INSERT INTO step_executions (workflow_execution_id, step_id, step_name, step_type) VALUES ($1, 's', 's', 's') RETURNING *`,
          execution['id'],
        ),
      ).toMatchObject({ status: 'queued', retry_count: 0, max_retries: 3 })
      const runbook = await one(
        `INSERT INTO runbooks (name, steps) VALUES ('defaults', '[]') RETURNING *`,
      )
      expect(runbook).toMatchObject({ version: 1, is_automated: false, execution_count: 0 })
      expect(
        await one(
          'INSERT INTO runbook_executions (runbook_id, executed_by) VALUES ($1, $2) RETURNING *',
          runbook['id'],
          user['id'],
        ),
      ).toMatchObject({ status: 'running', step_results: [] })
      expect(
        await one(
          `INSERT INTO incidents (title, severity, source) VALUES ('t', 'high', 's') RETURNING *`,
        ),
      ).toMatchObject({ status: 'open', affected_services: [], affected_users_count: 0 })
    })
  })

  describe('users', () => {
    test.each(['a@b.co', 'First.Last+tag@sub.example.org', 'x_%-1@A-B.info'])(
      'takes the address %s',
      async (email) => {
        expect(await aUser({ email })).toMatch(/-/)
      },
    )

    test.each(['a@b.c|', 'a@b.|o', 'a@b', '@b.co', 'a@', 'a b@c.de', 'a@b.c1', 'a@b.co\n', ''])(
      'refuses the address %j',
      async (email) => {
        await expect(aUser({ email })).rejects.toMatchObject({
          code: Sqlstate.check,
          constraint: 'chk_email_format',
        })
      },
    )

    test.each(['abc', 'A_b-9', 'x'.repeat(100)])('takes the name %s', async (username) => {
      expect(await aUser({ username })).toMatch(/-/)
    })

    test.each(['ab', 'a b', 'über', 'a.b.c', 'abc\n'])('refuses the name %j', async (username) => {
      await expect(aUser({ username })).rejects.toMatchObject({
        code: Sqlstate.check,
        constraint: 'chk_username_format',
      })
    })

    test('keeps addresses and names unique whatever their case, among users that live', async () => {
      const id = await aUser({ email: 'Case@Example.com', username: 'Case-User' })
      await expect(aUser({ email: 'cASE@example.COM' })).rejects.toMatchObject({
        code: Sqlstate.unique,
        constraint: 'uq_users_email',
      })
      await expect(aUser({ username: 'case-USER' })).rejects.toMatchObject({
        code: Sqlstate.unique,
        constraint: 'uq_users_username',
      })

      await rows('UPDATE users SET deleted_at = now() WHERE id = $1', id)
      await aUser({ email: 'case@example.com', username: 'case-user' })
      await expect(
        rows('UPDATE users SET deleted_at = NULL WHERE id = $1', id),
      ).rejects.toMatchObject({ code: Sqlstate.unique })
    })
  })

  describe('references and checks', () => {
    const aSession = (userId: string, more = ''): Promise<{ id: string }> =>
      one(
        `INSERT INTO sessions (user_id, token_hash, ip_address, created_at, expires_at)
          VALUES ($1, $2, '10.1.2.3', '2026-01-01', ${more === '' ? `'2999-01-01'` : more}) RETURNING id`,
        userId,
        newId(),
      )

    test('a session ends after it began, and its tokens are unique', async () => {
      const user = await aUser()
      for (const end of [`'2025-12-31'`, `'2026-01-01'`]) {
        await expect(aSession(user, end)).rejects.toMatchObject({
          code: Sqlstate.check,
          constraint: 'chk_expires_after_created',
        })
      }
      const insert = `INSERT INTO sessions (user_id, token_hash, refresh_token_hash, ip_address, expires_at) VALUES ($1, $2, $3, '::1', '2999-01-01')`
      await rows(insert, user, 'token', 'refresh')
      await expect(rows(insert, user, 'token', 'other')).rejects.toMatchObject({
        constraint: 'uq_sessions_token_hash',
      })
      await expect(rows(insert, user, 'other', 'refresh')).rejects.toMatchObject({
        constraint: 'uq_sessions_refresh_token_hash',
      })
    })

    test('a session that goes leaves its conversations; a user that goes takes everything along', async () => {
      const user = await aUser()
      const { id: session } = await aSession(user)
      const conversation = await aConversation(user)
      await rows('UPDATE conversations SET session_id = $1 WHERE id = $2', session, conversation)
      await rows('DELETE FROM sessions WHERE id = $1', session)
      expect(await one('SELECT session_id FROM conversations WHERE id = $1', conversation)).toEqual(
        { session_id: null },
      )
      await rows('DELETE FROM users WHERE id = $1', user)
      expect(await rows('SELECT 1 FROM conversations WHERE id = $1', conversation)).toEqual([])
    })

    test('knows four roles of messages and ratings of 1 to 5', async () => {
      const conversation = await aConversation(await aUser())
      const insert = (role: string, rating: number | null): Promise<unknown> =>
        rows(
          `INSERT INTO messages (conversation_id, role, content, sequence_number, feedback_rating) VALUES ($1, $2, '', 1, $3)`,
          conversation,
          role,
          rating,
        )
      for (const role of ['user', 'assistant', 'system', 'tool']) await insert(role, null)
      for (const rating of [1, 5]) await insert('user', rating)
      await expect(insert('robot', null)).rejects.toMatchObject({ constraint: 'chk_role' })
      for (const rating of [0, 6])
        await expect(insert('user', rating)).rejects.toMatchObject({ code: Sqlstate.check })
    })

    test('keeps the times of incidents and executions in order', async () => {
      const user = await aUser()
      const incident = (times: string): Promise<unknown> =>
        rows(
          `INSERT INTO incidents (title, severity, source, detected_at, acknowledged_at, resolved_at, closed_at)
            VALUES ('t', 'low', 's', ${times})`,
        )
      await incident(`'2026-01-02', '2026-01-02', '2026-01-03', '2026-01-03'`)
      await incident(`'2026-01-02', NULL, NULL, '2026-01-02'`)
      for (const times of [
        `'2026-01-02', '2026-01-01', NULL, NULL`,
        `'2026-01-02', NULL, '2026-01-01', NULL`,
        `'2026-01-02', NULL, NULL, '2026-01-01'`,
        `'2026-01-02', NULL, '2026-01-04', '2026-01-03'`,
      ]) {
        await expect(incident(times)).rejects.toMatchObject({ constraint: 'chk_incident_timing' })
      }
      const { id: workflow } = await one<{ id: string }>(
        `INSERT INTO workflows (user_id, name, definition) VALUES ($1, 'w', '{}') RETURNING id`,
        user,
      )
      const execution = (times: string): Promise<unknown> =>
        rows(
          `INSERT INTO workflow_executions (workflow_id, user_id, queued_at, started_at, completed_at) VALUES ($1, $2, ${times})`,
          workflow,
          user,
        )
      await execution(`'2026-01-01', '2026-01-01', '2026-01-01'`)
      await execution(`'2026-01-01', NULL, NULL`)
      for (const times of [
        `'2026-01-02', '2026-01-01', NULL`,
        `'2026-01-01', '2026-01-02', '2026-01-01'`,
      ]) {
        await expect(execution(times)).rejects.toMatchObject({
          constraint: 'chk_execution_timing',
        })
      }
      await expect(
        rows(`INSERT INTO workflows (user_id, name, definition) VALUES ($1, 'w', '{}')`, user),
      ).rejects.toMatchObject({ constraint: 'uq_workflow_name_version' })
    })
  })

  describe('statistics of conversations', () => {
    const statsOf = (id: string): Promise<Record<string, unknown>> =>
      one(
        'SELECT message_count, total_tokens, last_message_at FROM conversations WHERE id = $1',
        id,
      )

    test('follow inserts and deletes of many rows of several conversations in one statement', async () => {
      const user = await aUser()
      const [a, b] = [await aConversation(user), await aConversation(user)]
      await rows(
        `INSERT INTO messages (conversation_id, role, content, sequence_number, tokens_used, created_at)
          SELECT CASE WHEN n % 3 = 0 THEN $1::uuid ELSE $2::uuid END, 'user', '', n, CASE WHEN n = 1 THEN NULL ELSE n END,
            timestamptz '2026-01-01Z' + n * interval '1 minute'
          FROM generate_series(1, 30) n`,
        a,
        b,
      )
      expect(await statsOf(a)).toEqual({
        message_count: 10,
        total_tokens: 165,
        last_message_at: '2026-01-01T00:30:00.000000Z',
      })
      expect(await statsOf(b)).toEqual({
        message_count: 20,
        total_tokens: 299,
        last_message_at: '2026-01-01T00:29:00.000000Z',
      })

      await rows('DELETE FROM messages WHERE conversation_id = ANY ($1) AND sequence_number > 3', [
        a,
        b,
      ])
      expect(await statsOf(a)).toMatchObject({ message_count: 1, total_tokens: 3 })
      expect(await statsOf(b)).toMatchObject({ message_count: 2, total_tokens: 2 })
    })

    test('do not let an older message move the last time back', async () => {
      const conversation = await aConversation(await aUser())
      for (const at of ['2026-02-02Z', '2026-02-01Z']) {
        await rows(
          `INSERT INTO messages (conversation_id, role, content, sequence_number, created_at) VALUES ($1, 'user', '', 1, $2)`,
          conversation,
          at,
        )
      }
      expect(await statsOf(conversation)).toMatchObject({
        message_count: 2,
        last_message_at: '2026-02-02T00:00:00.000000Z',
      })
    })

    test('stay as they were when no row was touched', async () => {
      const conversation = await aConversation(await aUser())
      await rows('DELETE FROM messages WHERE conversation_id = $1', conversation)
      expect(await statsOf(conversation)).toEqual({
        message_count: 0,
        total_tokens: 0,
        last_message_at: null,
      })
    })
  })

  test('an update sets updated_at, whatever the writer says', async () => {
    const user = await aUser()
    const long = '2001-01-01T00:00:00.000000Z'
    const updated: Record<string, string> = {
      users: `INSERT INTO users (email, username, password_hash, updated_at) VALUES ('upd@example.com', 'upd', 'x', '${long}')`,
      conversations: `INSERT INTO conversations (user_id, updated_at) VALUES ('${user}', '${long}')`,
      workflows: `INSERT INTO workflows (user_id, name, definition, updated_at) VALUES ('${user}', 'upd', '{}', '${long}')`,
      incidents: `INSERT INTO incidents (title, severity, source, updated_at) VALUES ('upd', 'low', 's', '${long}')`,
      runbooks: `INSERT INTO runbooks (name, steps, updated_at) VALUES ('upd', '[]', '${long}')`,
      embeddings: `INSERT INTO embeddings (user_id, collection, model, dimension, vector, updated_at)
        VALUES ('${user}', 'code_embeddings', 'm', 1, '\\x00000000', '${long}')`,
      memory_trajectories: `INSERT INTO memory_trajectories (user_id, task_id, query, updated_at)
        VALUES ('${user}', 't', 'q', '${long}')`,
      memory_items: `INSERT INTO memory_items (user_id, record_id, polarity, title, description, content, source_query, model, dimension, query_vector, updated_at)
        VALUES ('${user}', '${user}', 'success', 't', 'd', 'c', 'q', 'm', 1, '\\x00000000', '${long}')`,
    }
    for (const [table, insert] of Object.entries(updated)) {
      const row = await one<{ id: string; updated_at: string }>(
        `${insert} RETURNING id, updated_at`,
      )
      expect(row.updated_at).toBe(long)
      const after = await one<{ updated_at: string; now: string }>(
        `UPDATE ${table} SET updated_at = '${long}' WHERE id = $1 RETURNING updated_at, now() AS now`,
        row.id,
      )
      expect([table, after.updated_at]).toEqual([table, after.now])
    }
  })

  describe('views', () => {
    test('active_sessions shows live sessions of live users, and how long they idle', async () => {
      const [user, gone] = [await aUser(), await aUser()]
      const session = (userId: string, status: string, end: string): Promise<{ id: string }> =>
        one(
          `INSERT INTO sessions (user_id, token_hash, ip_address, status, created_at, last_activity_at, expires_at)
            VALUES ($1, $2, '10.0.0.1', $3, now() - interval '1 day', now() - interval '100 s', now() + $4::interval) RETURNING id`,
          userId,
          newId(),
          status,
          end,
        )
      const live = await session(user, 'active', '1 hour')
      await session(user, 'active', '-1 s')
      await session(user, 'idle', '1 hour')
      await session(gone, 'active', '1 hour')
      await rows('UPDATE users SET deleted_at = now() WHERE id = $1', gone)

      const found = await rows<{ id: string; idle_seconds: number }>(
        'SELECT * FROM active_sessions WHERE user_id = ANY ($1)',
        [user, gone],
      )
      expect(found).toEqual([
        expect.objectContaining({ id: live.id, status: 'active', ip_address: '10.0.0.1' }),
      ])
      expect(found[0]?.idle_seconds).toBeGreaterThanOrEqual(100)
      expect(found[0]?.idle_seconds).toBeLessThan(700)
    })

    test('open_incidents_summary counts what is open by severity', async () => {
      await rows('DELETE FROM incidents')
      await rows(
        `INSERT INTO incidents (title, severity, source, status, detected_at) VALUES
          ('a', 'high', 's', 'open', '2026-01-01Z'), ('b', 'high', 's', 'investigating', '2026-01-03Z'),
          ('c', 'high', 's', 'closed', '2026-01-04Z'), ('d', 'low', 's', 'acknowledged', '2026-01-02Z'),
          ('e', 'info', 's', 'resolved', '2026-01-02Z')`,
      )
      const found = await rows('SELECT * FROM open_incidents_summary ORDER BY severity')
      expect(found).toEqual([
        {
          severity: 'high',
          count: 2,
          avg_age_seconds: expect.any(Number),
          most_recent: '2026-01-03T00:00:00.000000Z',
          oldest: '2026-01-01T00:00:00.000000Z',
        },
        {
          severity: 'low',
          count: 1,
          avg_age_seconds: expect.any(Number),
          most_recent: '2026-01-02T00:00:00.000000Z',
          oldest: '2026-01-02T00:00:00.000000Z',
        },
      ])
      // Noon between the two is a day after the first.
      const { age } = await one<{ age: number }>(
        `SELECT extract(epoch FROM now() - timestamptz '2026-01-02Z')::double precision AS age`,
      )
      const [high] = found
      expect(Math.abs(Number(high?.['avg_age_seconds']) - age)).toBeLessThan(600)
    })

    test('workflow_execution_stats counts the runs of workflows that live, also those never run', async () => {
      const user = await aUser()
      const workflow = async (name: string): Promise<string> =>
        (
          await one<{ id: string }>(
            `INSERT INTO workflows (user_id, name, definition) VALUES ($1, $2, '{}') RETURNING id`,
            user,
            name,
          )
        ).id
      const [run, idle, gone] = [
        await workflow('run'),
        await workflow('idle'),
        await workflow('gone'),
      ]
      await rows(
        `INSERT INTO workflow_executions (workflow_id, user_id, status, total_duration_ms, queued_at, completed_at) VALUES
          ($1, $2, 'success', 100, '2026-01-01Z', '2026-01-02Z'), ($1, $2, 'failed', 300, '2026-01-01Z', '2026-01-03Z'),
          ($1, $2, 'queued', NULL, '2026-01-01Z', NULL)`,
        run,
        user,
      )
      await rows('UPDATE workflows SET deleted_at = now() WHERE id = $1', gone)
      expect(
        await rows(
          'SELECT * FROM workflow_execution_stats WHERE workflow_id = ANY ($1) ORDER BY workflow_name DESC',
          [run, idle, gone],
        ),
      ).toEqual([
        {
          workflow_id: run,
          workflow_name: 'run',
          total_executions: 3,
          successful_executions: 1,
          failed_executions: 1,
          avg_duration_ms: 200,
          last_execution: '2026-01-03T00:00:00.000000Z',
        },
        {
          workflow_id: idle,
          workflow_name: 'idle',
          total_executions: 0,
          successful_executions: 0,
          failed_executions: 0,
          avg_duration_ms: null,
          last_execution: null,
        },
      ])
    })
  })

  describe('the audit trail', () => {
    const trailOf = (id: string): Promise<Record<string, unknown>[]> =>
      rows(
        'SELECT user_id, action, resource_type, changes FROM audit_logs WHERE resource_id = $1 ORDER BY created_at, id',
        id,
      )
    const as = <T>(userId: string, work: (session: Session) => Promise<T>): Promise<T> =>
      centre.database.transaction(async (session) => {
        await session.query(`SELECT set_config('app.user_id', $1, true)`, [userId])
        return work(session)
      })

    test('names who acted, not whose row it is, and works on tables without a user', async () => {
      const actor = await aUser()
      const id = await as(actor, async (session) => {
        const { rows: inserted } = await session.query<{ id: string }>(
          `INSERT INTO incidents (title, severity, source) VALUES ('before', 'low', 's') RETURNING id`,
        )
        return inserted[0]?.id ?? ''
      })
      await as(actor, (session) =>
        session.query(`UPDATE incidents SET title = 'after' WHERE id = $1`, [id]),
      )
      await rows('DELETE FROM incidents WHERE id = $1', id)

      expect(await trailOf(id)).toEqual([
        {
          user_id: actor,
          action: 'create',
          resource_type: 'incidents',
          changes: { after: expect.objectContaining({ title: 'before' }) },
        },
        {
          user_id: actor,
          action: 'update',
          resource_type: 'incidents',
          changes: {
            before: expect.objectContaining({ title: 'before' }),
            after: expect.objectContaining({ title: 'after' }),
          },
        },
        {
          user_id: null,
          action: 'delete',
          resource_type: 'incidents',
          changes: { before: expect.objectContaining({ title: 'after' }) },
        },
      ])
    })

    test('holds no secret', async () => {
      const secrets = { password_hash: 'PASSWORD', mfa_secret: 'MFA', api_key_hash: 'APIKEY' }
      const user = await aUser(secrets)
      await rows(`UPDATE users SET password_hash = 'PASSWORD2' WHERE id = $1`, user)
      const { id: workflow } = await one<{ id: string }>(
        `INSERT INTO workflows (user_id, name, definition, environment_vars) VALUES ($1, 'w', '{}', '{"KEY": "ENVSECRET"}') RETURNING id`,
        user,
      )
      const trail = [...(await trailOf(user)), ...(await trailOf(workflow))]
      expect(trail).toHaveLength(3)
      expect(JSON.stringify(trail)).not.toMatch(/PASSWORD|MFA|APIKEY|ENVSECRET/)
    })

    test('writes one entry for each row of a statement', async () => {
      const user = await aUser()
      const inserted = await rows<{ id: string }>(
        `INSERT INTO workflows (user_id, name, definition) SELECT $1, 'many ' || n, '{}' FROM generate_series(1, 5) n RETURNING id`,
        user,
      )
      for (const { id } of inserted) expect(await trailOf(id)).toHaveLength(1)
    })

    test('is keyed by id and month, refers to nothing, and outlives users and sessions unchanged', async () => {
      expect(
        await rows(
          `SELECT contype AS kind, pg_get_constraintdef(oid) AS definition FROM pg_constraint WHERE conrelid = 'audit_logs'::regclass AND contype <> 'n'`,
        ),
      ).toEqual([{ kind: 'p', definition: 'PRIMARY KEY (id, created_at)' }])

      const user = await aUser()
      const { id: session } = await one<{ id: string }>(
        `INSERT INTO sessions (user_id, token_hash, ip_address, expires_at) VALUES ($1, $2, '::1', '2999-01-01') RETURNING id`,
        user,
        newId(),
      )
      const { id } = await one<{ id: string }>(
        `INSERT INTO audit_logs (user_id, session_id, action, resource_type) VALUES ($1, $2, 'login', 'session') RETURNING id`,
        user,
        session,
      )
      const before = await one(
        'SELECT *, xmin::text AS written_by FROM audit_logs WHERE id = $1',
        id,
      )
      await rows('DELETE FROM sessions WHERE id = $1', session)
      await rows('DELETE FROM users WHERE id = $1', user)
      expect(
        await one('SELECT *, xmin::text AS written_by FROM audit_logs WHERE id = $1', id),
      ).toEqual(before)
    })
  })

  describe('partitions of the audit trail', () => {
    const aLogin = async (at: string): Promise<string> =>
      (
        await one<{ id: string }>(
          `INSERT INTO audit_logs (action, resource_type, created_at) VALUES ('login', 'partition', $1) RETURNING id`,
          at,
        )
      ).id
    const placeOf = async (id: string): Promise<string> =>
      (
        await one<{ place: string }>(
          'SELECT tableoid::regclass::text AS place FROM audit_logs WHERE id = $1',
          id,
        )
      ).place

    test('a month is made once, and what the default partition held of it moves there', async () => {
      const [first, last, next] = [
        await aLogin('2031-05-01T00:00:00Z'),
        await aLogin('2031-05-31T23:59:59.999999Z'),
        await aLogin('2031-06-01T00:00:00Z'),
      ]
      const { n: before } = await one<{ n: number }>('SELECT count(*) AS n FROM audit_logs')

      const make = `SELECT create_audit_logs_partition('2031-05-17') AS name`
      expect(await one(make)).toEqual({ name: 'audit_logs_2031_05' })
      expect(await one(make)).toEqual({ name: 'audit_logs_2031_05' })

      expect(await placeOf(first)).toBe('audit_logs_2031_05')
      expect(await placeOf(last)).toBe('audit_logs_2031_05')
      expect(await placeOf(next)).toBe('audit_logs_default')
      expect(await one('SELECT count(*) AS n FROM audit_logs')).toEqual({ n: before })
      expect(await placeOf(await aLogin('2031-05-02T00:00:00Z'))).toBe('audit_logs_2031_05')
    })

    test('months are those of UTC, whatever time zone the session is in', async () => {
      await centre.database.transaction(async (session) => {
        await session.query(`SET LOCAL timezone = 'Pacific/Auckland'`)
        await session.query(`SELECT create_audit_logs_partition('2032-01-01')`)
      })
      expect(await placeOf(await aLogin('2032-01-01T00:00:00Z'))).toBe('audit_logs_2032_01')
      expect(await placeOf(await aLogin('2032-01-31T23:59:59Z'))).toBe('audit_logs_2032_01')
      expect(await placeOf(await aLogin('2031-12-31T23:59:59Z'))).toBe('audit_logs_default')
    })

    test('what is older than the retention leaves by its bounds, whatever its name, and is kept in the archive', async () => {
      await rows(`SELECT create_audit_logs_partition('2019-03-01')`)
      await rows(`SELECT create_audit_logs_partition((now() AT TIME ZONE 'UTC')::date)`)
      await rows(
        `CREATE TABLE audit_logs_backup_of_bob PARTITION OF audit_logs FOR VALUES FROM ('2019-04-01Z') TO ('2019-05-01Z')`,
      )
      await rows(
        `CREATE TABLE audit_logs_9999_99 PARTITION OF audit_logs FOR VALUES FROM ('2090-01-01Z') TO (MAXVALUE)`,
      )
      // A table that is only called like a partition.
      await rows('CREATE TABLE audit_logs_2018_01 (note text)')
      const [march, april] = [await aLogin('2019-03-10Z'), await aLogin('2019-04-10Z')]
      const current = await aLogin('now')

      const dropped = await rows<{ name: string }>(
        'SELECT drop_old_audit_logs_partitions(12) AS name ORDER BY 1',
      )
      expect(dropped.map(({ name }) => name)).toEqual([
        'audit_logs_2019_03',
        'audit_logs_backup_of_bob',
      ])
      expect(
        await rows('SELECT id FROM audit_logs WHERE id = ANY ($1)', [[march, april]].flat()),
      ).toEqual([])
      expect(await rows('SELECT id FROM audit_archive.audit_logs_2019_03')).toEqual([{ id: march }])
      expect(await rows('SELECT id FROM audit_archive.audit_logs_backup_of_bob')).toEqual([
        { id: april },
      ])
      expect(await placeOf(current)).toMatch(/^audit_logs_\d{4}_\d{2}$/)
      expect(await rows(`SELECT to_regclass('audit_logs_2018_01') IS NOT NULL AS kept`)).toEqual([
        { kept: true },
      ])
      expect(await rows('SELECT drop_old_audit_logs_partitions(12)')).toEqual([])
    })
  })
})
