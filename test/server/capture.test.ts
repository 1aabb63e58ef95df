import { sql } from 'kysely'
import { Client } from 'pg'
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest'
import { mustColumn } from '../../schema/define.ts'
import { allTables, mustTable, type TableName } from '../../schema/tables.ts'
import { newId } from '../../schema/values/id.ts'
import type { Database } from '../../server/postgres/database.ts'
import {
  createUser,
  databaseKinds,
  SECRET_MARK,
  startCentreOn,
  type Centre,
} from '../support/centre.ts'
import { createDatabase } from '../support/databases.ts'
import { openCentralDatabase } from '../support/log-readers.ts'

interface Captured {
  table: string
  id: string
  op: string
  image: Record<string, unknown> | null
  before: string[] | null
  after: string[] | null
}

/** A centre's database and what its log holds since the last look. */
class Log {
  readonly centre: Centre
  #seen = 0

  constructor(centre: Centre) {
    this.centre = centre
  }

  async run(statement: string): Promise<void> {
    await sql.raw(statement).execute(this.centre.db)
  }

  async rows<R>(statement: string): Promise<R[]> {
    return (await sql.raw<R>(statement).execute(this.centre.db)).rows
  }

  /** Entries since the last look, in order. */
  async news(): Promise<Captured[]> {
    const rows = await this.rows<{
      seq: number
      tbl: number
      id: string
      op: string
      image: Record<string, unknown> | null
      keys_before: string[] | null
      keys_after: string[] | null
    }>(
      `SELECT seq, tbl, id, op, image, keys_before, keys_after FROM sync.log WHERE seq > ${this.#seen} ORDER BY seq`,
    )
    this.#seen = rows.at(-1)?.seq ?? this.#seen
    return rows.map((row) => ({
      table: allTables.find(({ number }) => number === row.tbl)?.name ?? String(row.tbl),
      id: row.id,
      op: row.op,
      image: row.image,
      before: row.keys_before,
      after: row.keys_after,
    }))
  }

  async meta(table: TableName, id: string): Promise<Meta | undefined> {
    const [row] = await this.rows<Meta>(
      `SELECT keys, keys_before, deleted, writer, cols FROM sync.row_meta WHERE tbl = ${mustTable(table).number} AND id = '${id}'`,
    )
    return row
  }
}

interface Meta {
  keys: string[]
  keys_before: string[] | null
  deleted: boolean
  writer: string | null
  cols: Record<string, [string, number, string | null]>
}

const brief = (entries: readonly Captured[]): string[] =>
  entries.map(({ table, op, id }) => `${op} ${table} ${id}`)

describe.each(databaseKinds)('capture on %s:', (kind) => {
  let log: Log
  let user: string
  let other: string

  beforeAll(async () => {
    const centre = await startCentreOn(kind)
    log = new Log(centre)
    user = (await createUser(centre)).id
    other = (await createUser(centre)).id
  })

  afterAll(async () => {
    await log.centre[Symbol.asyncDispose]()
  })

  async function conversation(messages = 0): Promise<{ id: string; messages: string[] }> {
    const id = newId()
    const ids = Array.from({ length: messages }, newId)
    await log.run(`INSERT INTO conversations (id, user_id, title) VALUES ('${id}', '${user}', 't')`)
    for (const [i, message] of ids.entries())
      await log.run(
        `INSERT INTO messages (id, conversation_id, role, content, sequence_number) VALUES ('${message}', '${id}', 'user', 'm', ${i})`,
      )
    await log.news()
    return { id, messages: ids }
  }

  async function incident(assigned: string | null = null): Promise<string> {
    const id = newId()
    const value = assigned === null ? 'NULL' : `'${assigned}'`
    await log.run(
      `INSERT INTO incidents (id, title, severity, source, assigned_to) VALUES ('${id}', 't', 'low', 's', ${value})`,
    )
    await log.news()
    return id
  }

  test('a direct insert, update and delete are logged with image and keys before and after', async () => {
    await log.news()
    const id = newId()
    await log.run(
      `INSERT INTO workflows (id, user_id, name, definition) VALUES ('${id}', '${user}', 'W', '{}')`,
    )
    const [made] = await log.news()
    expect(made).toMatchObject({
      table: 'workflows',
      id,
      op: 'insert',
      before: null,
      after: [`u:${user}`],
    })
    expect(made?.image).toMatchObject({ id, user_id: user, name: 'W', version: 1, is_active: true })
    await log.run(`UPDATE workflows SET name = 'V' WHERE id = '${id}'`)
    const [changed] = await log.news()
    expect(changed).toMatchObject({ op: 'update', before: [`u:${user}`], after: [`u:${user}`] })
    expect(changed?.image).toMatchObject({ name: 'V' })
    await log.run(`DELETE FROM workflows WHERE id = '${id}'`)
    expect(await log.news()).toEqual([
      { table: 'workflows', id, op: 'delete', image: null, before: [`u:${user}`], after: null },
    ])
  })

  test('a statement that touches many rows logs each of them once', async () => {
    const ids = [newId(), newId(), newId()]
    await log.news()
    await log.run(
      `INSERT INTO incidents (id, title, severity, source) VALUES ${ids.map((id) => `('${id}', 't', 'low', 's')`).join(', ')}`,
    )
    expect(brief(await log.news())).toEqual(ids.map((id) => `insert incidents ${id}`))
    await log.run(
      `UPDATE incidents SET title = 'u' WHERE id IN (${ids.map((id) => `'${id}'`).join(', ')})`,
    )
    expect(brief(await log.news()).toSorted()).toEqual(
      ids.map((id) => `update incidents ${id}`).toSorted(),
    )
  })

  test('a statement that touches no row logs nothing', async () => {
    await log.news()
    await log.run(`UPDATE incidents SET title = 'u' WHERE id = '${newId()}'`)
    await log.run(`DELETE FROM incidents WHERE id = '${newId()}'`)
    expect(await log.news()).toEqual([])
  })

  test('INSERT ... ON CONFLICT DO UPDATE logs the row as it then is', async () => {
    const id = await incident()
    await log.run(
      `INSERT INTO incidents (id, title, severity, source) VALUES ('${id}', 'again', 'low', 's')
      ON CONFLICT (id) DO UPDATE SET title = excluded.title`,
    )
    const entries = await log.news()
    expect(entries).toHaveLength(1)
    expect(entries[0]).toMatchObject({ id, op: 'update', image: { title: 'again' } })
  })

  test('rows that a cascade deletes keep their keys, although their parent is gone', async () => {
    const { id, messages } = await conversation(2)
    await log.run(`DELETE FROM conversations WHERE id = '${id}'`)
    const entries = await log.news()
    expect(brief(entries).toSorted()).toEqual(
      [
        `delete conversations ${id}`,
        ...messages.map((message) => `delete messages ${message}`),
      ].toSorted(),
    )
    for (const { before, after, image } of entries)
      expect({ before, after, image }).toEqual({ before: [`u:${user}`], after: null, image: null })
    expect(await log.meta('messages', messages[0] ?? '')).toMatchObject({
      deleted: true,
      keys: [`u:${user}`],
    })
  })

  test('a cascade through two levels is logged down to the last row', async () => {
    const [workflow, execution, step] = [newId(), newId(), newId()]
    await log.run(
      `INSERT INTO workflows (id, user_id, name, definition) VALUES ('${workflow}', '${user}', '${workflow}', '{}')`,
    )
    await log.run(
      `INSERT INTO workflow_executions (id, workflow_id, user_id) VALUES ('${execution}', '${workflow}', '${user}')`,
    )
    await log.run(
      `INSERT INTO step_executions (id, workflow_execution_id, step_id, step_name, step_type) VALUES ('${step}', '${execution}', 's', 's', 's')`,
    )
    await log.news()
    await log.run(`DELETE FROM workflows WHERE id = '${workflow}'`)
    const entries = await log.news()
    expect(brief(entries).toSorted()).toEqual(
      [
        `delete step_executions ${step}`,
        `delete workflow_executions ${execution}`,
        `delete workflows ${workflow}`,
      ].toSorted(),
    )
    expect(entries.map(({ before }) => before)).toEqual([
      [`u:${user}`],
      [`u:${user}`],
      [`u:${user}`],
    ])
  })

  test('a SET NULL of a foreign key is logged as the update it is', async () => {
    const session = newId()
    await log.run(
      `INSERT INTO sessions (id, user_id, token_hash, ip_address, expires_at) VALUES ('${session}', '${user}', '${session}', '10.0.0.1', now() + interval '1 hour')`,
    )
    const { id } = await conversation()
    await log.run(`UPDATE conversations SET session_id = '${session}' WHERE id = '${id}'`)
    await log.news()
    await log.run(`DELETE FROM sessions WHERE id = '${session}'`)
    const entries = await log.news()
    expect(brief(entries).toSorted()).toEqual([
      `delete sessions ${session}`,
      `update conversations ${id}`,
    ])
    expect(entries.find(({ table }) => table === 'conversations')?.image).toMatchObject({
      session_id: null,
    })
    expect(Object.keys((await log.meta('conversations', id))?.cols ?? {})).toContain('session_id')
  })

  test('what another trigger changes is logged: the statistics of a conversation', async () => {
    const { id } = await conversation()
    const message = newId()
    await log.run(
      `INSERT INTO messages (id, conversation_id, role, content, sequence_number, tokens_used) VALUES ('${message}', '${id}', 'user', 'm', 1, 5)`,
    )
    const entries = await log.news()
    expect(brief(entries).toSorted()).toEqual(
      [`insert messages ${message}`, `update conversations ${id}`].toSorted(),
    )
    expect(entries.find(({ table }) => table === 'conversations')?.image).toMatchObject({
      message_count: 1,
      total_tokens: 5,
    })
    await log.run(`DELETE FROM messages WHERE id = '${message}'`)
    expect((await log.news()).find(({ table }) => table === 'conversations')?.image).toMatchObject({
      message_count: 0,
      total_tokens: 0,
    })
  })

  test('an incident that is given to someone else carries the keys before and after', async () => {
    const id = await incident(user)
    await log.run(`UPDATE incidents SET assigned_to = '${other}' WHERE id = '${id}'`)
    expect(await log.news()).toMatchObject([
      { op: 'update', before: ['incidents', `u:${user}`], after: ['incidents', `u:${other}`] },
    ])
    await log.run(`UPDATE incidents SET assigned_to = NULL WHERE id = '${id}'`)
    expect(await log.news()).toMatchObject([
      { before: ['incidents', `u:${other}`], after: ['incidents'] },
    ])
    expect(await log.meta('incidents', id)).toMatchObject({ keys: ['incidents'] })
  })

  test('a row that is deleted and made again is alive again, with stamps anew', async () => {
    const id = await incident(user)
    await log.run(`UPDATE incidents SET title = 'u' WHERE id = '${id}'`)
    await log.run(`DELETE FROM incidents WHERE id = '${id}'`)
    expect(await log.meta('incidents', id)).toMatchObject({ deleted: true, cols: {} })
    await log.run(
      `INSERT INTO incidents (id, title, severity, source) VALUES ('${id}', 'new', 'low', 's')`,
    )
    expect(await log.meta('incidents', id)).toEqual({
      keys: ['incidents'],
      keys_before: null,
      deleted: false,
      writer: null,
      cols: {},
    })
  })

  test('stamps name the columns that changed, and only those, with transaction, clock and writer', async () => {
    const id = await incident()
    const before = Date.now() * 1000
    await log.run(
      `UPDATE incidents SET title = 'u', severity = 'low', root_cause = 'rc' WHERE id = '${id}'`,
    )
    const meta = await log.meta('incidents', id)
    // severity was low already; updated_at is derived.
    expect(Object.keys(meta?.cols ?? {}).toSorted()).toEqual(['root_cause', 'title'])
    const [xid, clock, writer] = meta?.cols['title'] ?? []
    expect(xid).toMatch(/^\d+$/)
    expect(clock).toBeGreaterThanOrEqual(before - 1_000_000)
    expect(clock).toBeLessThanOrEqual(Date.now() * 1000 + 1_000_000)
    expect(writer).toBeNull()
    await log.run(`UPDATE incidents SET description = 'd' WHERE id = '${id}'`)
    const later = await log.meta('incidents', id)
    expect(Object.keys(later?.cols ?? {}).toSorted()).toEqual([
      'description',
      'root_cause',
      'title',
    ])
    expect(later?.cols['title']).toEqual(meta?.cols['title'])
    expect(later?.cols['description']?.[0]).not.toBe(xid)
  })

  test('a change to or from NULL is a change', async () => {
    const id = await incident(user)
    await log.run(`UPDATE incidents SET assigned_to = NULL WHERE id = '${id}'`)
    expect(Object.keys((await log.meta('incidents', id))?.cols ?? {})).toEqual(['assigned_to'])
  })

  test('a changed primary key is refused by the name of the column', async () => {
    const id = await incident()
    await expect(
      log.run(`UPDATE incidents SET id = '${newId()}' WHERE id = '${id}'`),
    ).rejects.toMatchObject({
      code: '23000',
      message: expect.stringContaining('incidents.id never changes') as string,
    })
    // One of the two takes the other's id: the set of ids before and after overlaps.
    const second = await incident()
    await expect(
      log.run(
        `UPDATE incidents SET id = CASE id WHEN '${id}' THEN '${newId()}'::uuid ELSE '${id}'::uuid END WHERE id IN ('${id}', '${second}')`,
      ),
    ).rejects.toMatchObject({ code: expect.stringMatching(/^23/) as string })
    expect(await log.news()).toEqual([])
  })

  test.each(
    allTables.filter(({ writeClass }) => writeClass !== 'push-only').map(({ name }) => name),
  )('TRUNCATE of %s is refused', async (table) => {
    await expect(log.run(`TRUNCATE ${table} CASCADE`)).rejects.toMatchObject({ code: '0A000' })
  })

  test.each(['repeatable read', 'serializable'] as const)(
    'a write under %s is refused',
    async (level) => {
      const id = await incident()
      const write = log.centre.db
        .transaction()
        .setIsolationLevel(level)
        .execute((transaction) =>
          transaction
            .updateTable('incidents')
            .set({ title: 'late' })
            .where('id', '=', id)
            .execute(),
        )
      await expect(write).rejects.toMatchObject({
        code: '25000',
        message: expect.stringContaining('READ COMMITTED') as string,
      })
      expect(await log.news()).toEqual([])
    },
  )

  test('no image ever holds a column that only the centre may see', async () => {
    const user2 = await createUser(log.centre)
    await log.run(
      `UPDATE users SET password_hash = '${SECRET_MARK}-2', full_name = 'N' WHERE id = '${user2.id}'`,
    )
    await log.run(
      `INSERT INTO sessions (user_id, token_hash, refresh_token_hash, ip_address, expires_at) VALUES ('${user2.id}', '${SECRET_MARK}-t', '${SECRET_MARK}-r', '10.0.0.1', now() + interval '1 hour')`,
    )
    await log.run(`UPDATE sessions SET status = 'idle' WHERE user_id = '${user2.id}'`)
    const images = await log.rows<{ tbl: number; image: string }>(
      'SELECT tbl, image::text AS image FROM sync.log WHERE tbl IN (1, 2) AND image IS NOT NULL',
    )
    expect(images.length).toBeGreaterThanOrEqual(5)
    for (const { tbl, image } of images) {
      expect(image).not.toContain(SECRET_MARK)
      const table = allTables.find(({ number }) => number === tbl)
      const names = Object.keys(JSON.parse(image) as object)
      const hidden = Object.keys(table?.columns ?? {}).filter(
        (name) => table !== undefined && mustColumn(table, name).serverOnly,
      )
      expect(hidden.length).toBeGreaterThan(1)
      expect(names.filter((name) => hidden.includes(name))).toEqual([])
    }
    const stamps = await log.meta('users', user2.id)
    expect(Object.keys(stamps?.cols ?? {})).toEqual(['full_name'])
  })

  test('a delete by a foreign key of a user reaches everyone who held something of it', async () => {
    const gone = await createUser(log.centre)
    const id = newId()
    await log.run(`INSERT INTO conversations (id, user_id) VALUES ('${id}', '${gone.id}')`)
    const assigned = await incident(gone.id)
    await log.news()
    await log.run(`DELETE FROM users WHERE id = '${gone.id}'`)
    const entries = await log.news()
    expect(entries.find(({ table }) => table === 'users')).toMatchObject({
      before: [`u:${gone.id}`, 'p'],
      after: null,
    })
    expect(entries.find(({ table }) => table === 'conversations')).toMatchObject({
      before: [`u:${gone.id}`],
    })
    expect(entries.find(({ table }) => table === 'incidents')).toMatchObject({
      id: assigned,
      before: ['incidents', `u:${gone.id}`],
      after: ['incidents'],
    })
  })
})

describe('capture that someone tries to go around:', () => {
  let database: Database
  let client: Client
  let drop: () => Promise<void>

  beforeAll(async () => {
    const created = await createDatabase(inject('postgresUrl'), 'capture')
    database = await openCentralDatabase(created.url)
    client = new Client({ connectionString: created.url })
    await client.connect()
    drop = () => created.drop()
  })

  afterAll(async () => {
    await client.end()
    await database.close()
    await drop()
  })

  const count = async (): Promise<number> =>
    (await database.query<{ n: number }>('SELECT count(*) AS n FROM sync.log')).rows[0]?.n ?? -1

  test('writes under session_replication_role = replica are captured', async () => {
    const before = await count()
    const id = newId()
    await client.query('SET session_replication_role = replica')
    await client.query(
      `INSERT INTO incidents (id, title, severity, source) VALUES ('${id}', 't', 'low', 's')`,
    )
    await client.query(`UPDATE incidents SET title = 'u' WHERE id = '${id}'`)
    await client.query(`DELETE FROM incidents WHERE id = '${id}'`)
    await expect(client.query('TRUNCATE incidents CASCADE')).rejects.toMatchObject({
      code: '0A000',
    })
    await client.query('RESET session_replication_role')
    expect(await count()).toBe(before + 3)
  })

  test('every synced table has all its capture triggers, enabled always', async () => {
    const { rows } = await database.query<{ table: string; triggers: string[] }>(
      `SELECT c.relname AS table, array_agg(g.tgname || ':' || g.tgenabled::text ORDER BY g.tgname)::text[] AS triggers
      FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid WHERE g.tgname ~ '^(zz_)?sync_' GROUP BY 1`,
    )
    const synced = allTables.filter(({ writeClass }) => writeClass !== 'push-only')
    expect(rows.map(({ table }) => table).toSorted()).toEqual(
      synced.map(({ name }) => name).toSorted(),
    )
    for (const { triggers } of rows)
      expect(triggers).toEqual([
        'sync_refuse_truncate:A',
        'zz_sync_capture_delete:A',
        'zz_sync_capture_insert:A',
        'zz_sync_capture_update:A',
      ])
  })

  test('COPY and MERGE are captured', async () => {
    const before = await count()
    const id = newId()
    await client.query(
      `MERGE INTO incidents i USING (SELECT '${id}'::uuid AS id) s ON i.id = s.id
      WHEN NOT MATCHED THEN INSERT (id, title, severity, source) VALUES (s.id, 't', 'low', 's')`,
    )
    await client.query(
      `MERGE INTO incidents i USING (SELECT '${id}'::uuid AS id) s ON i.id = s.id WHEN MATCHED THEN UPDATE SET title = 'm'`,
    )
    await client.query(
      `COPY incidents (title, severity, source) FROM PROGRAM 'printf "t\\tlow\\ts\\n"'`,
    )
    expect(await count()).toBe(before + 3)
  })

  test('the log is partitioned ahead, and an entry beyond every partition still has a place', async () => {
    await database.query('SELECT sync.ensure_log_partitions()')
    await database.query('SELECT sync.ensure_log_partitions()')
    const { rows } = await database.query<{ n: number }>(
      `SELECT count(*) AS n FROM pg_inherits WHERE inhparent = 'sync.log'::regclass`,
    )
    expect(rows[0]?.n).toBeGreaterThanOrEqual(3)
    await database.query(
      `INSERT INTO sync.log (tbl, id, op, at) VALUES (99, gen_random_uuid(), 'delete', now() + interval '1 year')`,
    )
    const { rows: kept } = await database.query<{ n: number }>(
      'SELECT count(*) AS n FROM sync.log WHERE tbl = 99',
    )
    expect(kept).toEqual([{ n: 1 }])
  })
})
