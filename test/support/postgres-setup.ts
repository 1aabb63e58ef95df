import { Client } from 'pg'
import type { TestProject } from 'vitest/node'

import { startPostgres, type PostgresServer } from './postgres-server.ts'

declare module 'vitest' {
  export interface ProvidedContext {
    /** Connection URL of a role that may create databases on a real PostgreSQL server. */
    postgresUrl: string
  }
}

let server: PostgresServer | undefined

/**
 * Runs once before all tests: the server that `DATABASE_URL` names, else one of our own.
 * Tests read its URL with `inject('postgresUrl')` and make databases with `createDatabase`.
 */
export async function setup(project: TestProject): Promise<void> {
  const configured = process.env['DATABASE_URL']
  if (configured !== undefined && configured !== '') {
    await mustAnswer(configured)
    project.provide('postgresUrl', configured)
    return
  }
  server = await startPostgres()
  project.provide('postgresUrl', server.url)
}

export async function teardown(): Promise<void> {
  await server?.stop()
}

async function mustAnswer(url: string): Promise<void> {
  const client = new Client({ connectionString: url, connectionTimeoutMillis: 10_000 })
  try {
    await client.connect()
  } catch (error) {
    throw new Error(
      'DATABASE_URL is set, but the server does not answer. Start it, correct the URL, or unset ' +
        'DATABASE_URL to have the tests start their own.',
      { cause: error },
    )
  } finally {
    await client.end()
  }
}
