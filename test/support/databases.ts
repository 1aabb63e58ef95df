import { randomBytes } from 'node:crypto'

import { Client } from 'pg'

const PREFIX_PATTERN = /^[a-z][a-z0-9_]{0,39}$/

/** An empty database that belongs to one test. */
export interface TestDatabase extends AsyncDisposable {
  readonly url: string
  readonly name: string
  /** Drops the database and ends the connections to it. May be called more than once. */
  drop(): Promise<void>
}

/**
 * Creates an empty database with a name of its own on the server of `adminUrl`.
 *
 * @param adminUrl a role that may create databases, in tests `inject('postgresUrl')`
 * @param prefix start of the name: lower-case letters, digits and `_`, at most 40 characters
 *
 * @example
 * await using database = await createDatabase(inject('postgresUrl'), 'push')
 */
export async function createDatabase(adminUrl: string, prefix = 'test'): Promise<TestDatabase> {
  if (!PREFIX_PATTERN.test(prefix)) {
    throw new TypeError(`database prefix ${JSON.stringify(prefix)} must match ${PREFIX_PATTERN}`)
  }
  const name = `${prefix}_${randomBytes(6).toString('hex')}`
  // template0: nobody can be connected to it, so parallel tests cannot block each other's copy.
  await runAsAdmin(adminUrl, `CREATE DATABASE "${name}" TEMPLATE template0`)

  const url = new URL(adminUrl)
  url.pathname = `/${name}`
  const drop = (): Promise<void> =>
    runAsAdmin(adminUrl, `DROP DATABASE IF EXISTS "${name}" WITH (FORCE)`)
  return { url: url.href, name, drop, [Symbol.asyncDispose]: drop }
}

async function runAsAdmin(adminUrl: string, sql: string): Promise<void> {
  const client = new Client({ connectionString: adminUrl })
  await client.connect()
  try {
    await client.query(sql)
  } finally {
    await client.end()
  }
}
