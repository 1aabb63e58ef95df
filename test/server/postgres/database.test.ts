import { Client } from 'pg'
import { afterEach, beforeEach, expect, inject, test } from 'vitest'
import { newId } from '../../../schema/values/id.ts'
import { Database } from '../../../server/postgres/database.ts'
import { prepareCentre } from '../../../server/postgres/prepare.ts'
import { startCentre } from '../../support/centre.ts'
import { createDatabase, type TestDatabase } from '../../support/databases.ts'

let scratch: TestDatabase
let admin: Client

beforeEach(async () => {
  scratch = await createDatabase(inject('postgresUrl'), 'database')
  admin = new Client({ connectionString: scratch.url })
  await admin.connect()
})
afterEach(async () => {
  await admin.end()
  await scratch.drop()
})

/** The centre's other connections to this database, by what they call themselves. */
async function names(): Promise<string[]> {
  const { rows } = await admin.query<{ name: string }>(
    `SELECT DISTINCT application_name AS name FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend' ORDER BY 1`,
  )
  return rows.map(({ name }) => name)
}

test('every connection of a server says whose it is', async () => {
  await using centre = await startCentre({ databaseUrl: scratch.url })
  await centre.db.selectFrom('users').select('id').execute()
  // The one that listens is made beside the start.
  let seen = await names()
  while (seen.length < 2) seen = await names()
  expect(seen).toEqual(['llm_copilot_agent', 'llm_copilot_agent_listen'])
})

/** Extensions of the centre, as a user of the database makes it. */
async function extensionsMadeBy(url: string): Promise<string[]> {
  const database = await Database.open({ url, folder: undefined, connectionsMax: 2 })
  try {
    await prepareCentre(database)
    const { rows } = await database.query<{ name: string }>(
      `SELECT extname AS name FROM pg_extension WHERE extname <> 'plpgsql' ORDER BY 1`,
    )
    return rows.map(({ name }) => name)
  } finally {
    await database.close()
  }
}

test('pg_stat_statements is made where the server lets us; where it does not, the centre is made without', async () => {
  const needed = ['pg_trgm', 'pgcrypto', 'uuid-ossp']
  const { rows } = await admin.query(
    `SELECT 1 FROM pg_available_extensions WHERE name = 'pg_stat_statements'`,
  )
  const everything = rows.length === 0 ? needed : ['pg_stat_statements', ...needed]
  expect(await extensionsMadeBy(scratch.url)).toEqual(everything)

  // Who owns its database and is no superuser.
  await using other = await createDatabase(inject('postgresUrl'), 'owned')
  const role = `owner_${newId().replaceAll('-', '')}`
  const url = new URL(other.url)
  const name = url.pathname.slice(1)
  await admin.query(`CREATE ROLE ${role} LOGIN CREATEROLE PASSWORD 'p'`)
  await admin.query(`ALTER DATABASE ${name} OWNER TO ${role}`)
  url.username = role
  url.password = 'p'
  try {
    expect(await extensionsMadeBy(url.href)).toEqual(needed)
  } finally {
    await admin.query(`ALTER DATABASE ${name} OWNER TO CURRENT_USER`)
    const inside = new Client({ connectionString: other.url })
    await inside.connect()
    await inside.query(`REASSIGN OWNED BY ${role} TO CURRENT_USER`)
    await inside.query(`DROP OWNED BY ${role}`)
    await inside.end()
    await admin.query(`DROP ROLE ${role}`)
  }
})
