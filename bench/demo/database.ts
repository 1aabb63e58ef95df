import { randomBytes } from 'node:crypto'
import { Client } from 'pg'

export interface DemoDatabase {
  readonly url: string
  drop(): Promise<void>
}

/** A database of the demo's own on the server of `adminUrl`, so that nothing of yours is touched. */
export async function createDemoDatabase(adminUrl: string): Promise<DemoDatabase> {
  const name = `agentdb_demo_${randomBytes(6).toString('hex')}`
  try {
    await run(adminUrl, `CREATE DATABASE "${name}" TEMPLATE template0`)
  } catch (error) {
    throw new Error(
      `DATABASE_URL is set, but no database can be made there (${error instanceof Error ? error.message : String(error)}); unset it to run on PGlite`,
      { cause: error },
    )
  }
  const url = new URL(adminUrl)
  url.pathname = `/${name}`
  return {
    url: url.href,
    drop: () => run(adminUrl, `DROP DATABASE IF EXISTS "${name}" WITH (FORCE)`),
  }
}

async function run(url: string, statement: string): Promise<void> {
  const client = new Client({ connectionString: url })
  await client.connect()
  try {
    await client.query(statement)
  } finally {
    await client.end()
  }
}
