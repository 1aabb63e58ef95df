import { Client } from 'pg'
import { describe, expect, inject, test } from 'vitest'

import { createDatabase } from './databases.ts'
import { startPostgres } from './postgres-server.ts'

async function query(url: string, sql: string): Promise<readonly Record<string, unknown>[]> {
  const client = new Client({ connectionString: url })
  await client.connect()
  try {
    const { rows } = await client.query<Record<string, unknown>>(sql)
    return rows
  } finally {
    await client.end()
  }
}

describe('the PostgreSQL server of the tests', () => {
  test('is a real server', async () => {
    const [row] = await query(
      inject('postgresUrl'),
      `SELECT version(), pg_current_snapshot()::text AS snapshot,
              current_setting('server_version_num')::int AS number`,
    )
    expect(row?.['version']).toMatch(/^PostgreSQL \d+/)
    expect(row?.['snapshot']).toMatch(/^\d+:\d+:[\d,]*$/)
    expect(row?.['number']).toBeGreaterThanOrEqual(140_000)
  })

  test('gives each test a database of its own', async () => {
    await using one = await createDatabase(inject('postgresUrl'), 'separate')
    await using two = await createDatabase(inject('postgresUrl'), 'separate')
    await query(one.url, 'CREATE TABLE only_here (id int)')

    const find = `SELECT to_regclass('only_here') IS NOT NULL AS found`
    expect(await query(one.url, find)).toEqual([{ found: true }])
    expect(await query(two.url, find)).toEqual([{ found: false }])
  })

  test('drops a database that still has connections, also twice', async () => {
    const database = await createDatabase(inject('postgresUrl'))
    const client = new Client({ connectionString: database.url })
    client.on('error', () => undefined)
    await client.connect()

    await database.drop()
    await database.drop()

    const left = await query(
      inject('postgresUrl'),
      `SELECT datname FROM pg_database WHERE datname = '${database.name}'`,
    )
    expect(left).toEqual([])
  })

  test('refuses a prefix that is no plain name', async () => {
    await expect(createDatabase(inject('postgresUrl'), 'a"b')).rejects.toThrow(/must match/)
  })
})

describe('a PostgreSQL server of its own', () => {
  test('keeps what was committed across kill -9 and restart, on the same port', async () => {
    await using server = await startPostgres({ settings: { work_mem: '5MB' } })
    const { url } = server
    await query(url, 'CREATE TABLE kept AS SELECT 7 AS id')

    await server.kill9()
    await expect(query(url, 'SELECT 1')).rejects.toThrow(/ECONNREFUSED/)
    await server.restart()
    expect(await query(url, 'SELECT id FROM kept')).toEqual([{ id: 7 }])

    await server.restart()
    expect(server.url).toBe(url)
    expect(await query(url, `SELECT current_setting('work_mem') AS value`)).toEqual([
      { value: '5MB' },
    ])
    expect(await query(url, `SELECT current_setting('fsync') AS value`)).toEqual([{ value: 'on' }])
  })
})
