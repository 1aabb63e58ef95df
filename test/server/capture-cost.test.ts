import pg from 'pg'
import { expect, inject, test } from 'vitest'
import { newId } from '../../schema/values/id.ts'
import { Database } from '../../server/postgres/database.ts'
import { migrateCentre } from '../../server/postgres/migrator.ts'
import { createDatabase } from '../support/databases.ts'

const insertMessages = `INSERT INTO messages (conversation_id, role, content, sequence_number)
  SELECT ($1::uuid[])[1 + n % 10], 'user', 'hello', n FROM generate_series(1, $2::integer) n`

test('a connection whose first batch met empty tables never reads whole tables later', async () => {
  await using scratch = await createDatabase(inject('postgresUrl'), 'cost')
  const database = await Database.open({ url: scratch.url, folder: undefined, connectionsMax: 2 })
  await migrateCentre(database)
  await database.close()
  const client = new pg.Client(scratch.url)
  await client.connect()
  try {
    const user = newId()
    const conversations = Array.from({ length: 10 }, newId)
    await client.query(
      `INSERT INTO users (id, email, username, password_hash) VALUES ($1, 'a@example.org', 'abc', 'x')`,
      [user],
    )
    await client.query('INSERT INTO conversations (id, user_id) SELECT unnest($2::uuid[]), $1', [
      user,
      conversations,
    ])
    await client.query(insertMessages, [conversations, 5])
    await client.query(insertMessages, [conversations, 3000])
    await client.query('BEGIN')
    const before = await rowsRead(client)
    await client.query(insertMessages, [conversations, 200])
    await client.query('UPDATE messages SET feedback_rating = 5 WHERE conversation_id = $1', [
      conversations[0],
    ])
    await client.query('DELETE FROM messages WHERE conversation_id = $1', [conversations[1]])
    expect(await rowsRead(client)).toEqual(before)
    await client.query('COMMIT')
  } finally {
    await client.end()
  }
})

/** Rows read by scanning a table whole. Of conversations, foreign-key checks of PostgreSQL's own may do so. */
async function rowsRead(client: pg.Client): Promise<Map<string, number>> {
  const { rows } = await client.query<{ relname: string; read: string }>(
    `SELECT relname, seq_tup_read AS read FROM pg_stat_xact_user_tables WHERE relname IN ('messages', 'row_meta')`,
  )
  return new Map(rows.map(({ relname, read }) => [relname, Number(read)]))
}
