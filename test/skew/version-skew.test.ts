import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest'
import { newId } from '../../schema/values/id.ts'
import { makeNextBuild, thisBuild, type Build } from '../support/next-build.ts'
import { scratchFolder, type ScratchFolder } from '../support/store.ts'
import {
  centreDatabase,
  VersionedAgent,
  VersionedServer,
  type CentreDatabase,
  type Pulled,
  type VersionedUser,
} from '../support/versioned.ts'

/**
 * Agents and servers of this build and of the next, which `next-build.ts` makes: version 2 of the schema has a nullable
 * column (conversations.summary), one with a default (conversations.priority), one whose value older agents' rows get from
 * an upcast (incidents.origin), a value of an enum (incidents.status archived) and a table (notes).
 */
let next: Build
let folder: ScratchFolder

beforeAll(() => {
  folder = scratchFolder()
  next = makeNextBuild(folder.file('next'))
})

afterAll(() => folder[Symbol.dispose]())

const [CONVERSATIONS, INCIDENTS, NOTES] = [3, 8, 15]
const storeFile = (): string => folder.file(`${newId()}.db`)

const conversation = (id: string, user: VersionedUser, title: string) =>
  ['INSERT INTO conversations (id, user_id, title) VALUES (?, ?, ?)', id, user.id, title] as const
const incident = (id: string, title: string, source = 'pager') =>
  [
    `INSERT INTO incidents (id, title, severity, source) VALUES (?, ?, 'high', ?)`,
    id,
    title,
    source,
  ] as const
const message = (id: string, of: string, content: string) =>
  [
    `INSERT INTO messages (id, conversation_id, role, content, sequence_number) VALUES (?, ?, 'user', ?, 1)`,
    id,
    of,
    content,
  ] as const

async function mustAgree(agent: VersionedAgent): Promise<void> {
  const { local, central } = await agent.checksums()
  expect(local.tables).toEqual(central.tables)
}

/** Rows that pulls brought, by table. */
function rowsOf(pulls: readonly Pulled[]): Map<number, number> {
  const rows = new Map<number, number>()
  for (const { table, rows: count } of pulls.flatMap(({ tables }) => tables))
    rows.set(table, (rows.get(table) ?? 0) + count)
  return rows
}

async function drained(agent: VersionedAgent): Promise<void> {
  await agent.now()
  expect(await agent.status()).toMatchObject({ pending: 0, parked: 0 })
}

/** Outcomes of what did not happen; concurrent edits that were combined are as wanted. */
const refusedOf = (outcomes: Awaited<ReturnType<VersionedAgent['outcomes']>>) =>
  outcomes.filter(({ kind }) => kind !== 'applied' && kind !== 'merged')

/** A centre that can be upgraded: the servers of either build on one database. */
async function withCentre(
  build: Build,
  work: (database: CentreDatabase, server: VersionedServer) => Promise<void>,
): Promise<void> {
  await using database = await centreDatabase(inject('postgresUrl'))
  await using server = await VersionedServer.open(build, database.url)
  await work(database, server)
}

describe('an agent one version older than its centre', () => {
  test('writes rows that get the new columns at the centre, and leaves those columns alone', async () => {
    await withCentre(next, async (database, server) => {
      const user = await server.user(database)
      const { url } = server
      await using agent = await VersionedAgent.open(thisBuild, { path: storeFile(), user, url })
      const [talk, paged, probed] = [newId(), newId(), newId()]
      await agent.write(
        conversation(talk, user, 'old'),
        incident(paged, 'disk', 'pager'),
        incident(probed, 'net', 'probe'),
      )
      await drained(agent)
      expect(
        await database.query('SELECT summary, priority FROM conversations WHERE id = $1', [talk]),
      ).toEqual([{ summary: null, priority: 3 }])
      // Not a default: the upcast made it of another column.
      expect(
        await database.query('SELECT source, origin FROM incidents ORDER BY source', []),
      ).toEqual([
        { source: 'pager', origin: 'person' },
        { source: 'probe', origin: 'machine' },
      ])

      await database.query(
        `UPDATE conversations SET summary = 'kept', priority = 9 WHERE id = $1`,
        [talk],
      )
      await agent.write(['UPDATE conversations SET title = ? WHERE id = ?', 'new', talk])
      await drained(agent)
      expect(await database.query('SELECT title, summary, priority FROM conversations')).toEqual([
        { title: 'new', summary: 'kept', priority: 9 },
      ])
      await mustAgree(agent)
    })
  })

  test('is sent no table and no column that it does not know', async () => {
    await withCentre(next, async (database, server) => {
      const user = await server.user(database)
      const talk = newId()
      await database.query(
        `INSERT INTO conversations (id, user_id, title, summary) VALUES ($1, $2, 'a', 'b')`,
        [talk, user.id],
      )
      await database.query(`INSERT INTO notes (conversation_id, body) VALUES ($1, 'first')`, [talk])
      await using agent = await VersionedAgent.open(thisBuild, {
        path: storeFile(),
        user,
        url: server.url,
      })
      await agent.now()
      await database.query(`INSERT INTO notes (conversation_id, body) VALUES ($1, 'later')`, [talk])
      await database.query(`UPDATE conversations SET summary = 'c', title = 'd'`)
      await agent.now()
      const tables = (await agent.pulls()).flatMap((pull) => pull.tables)
      expect(tables.map(({ table }) => table)).toContain(CONVERSATIONS)
      expect(tables.map(({ table }) => table)).not.toContain(NOTES)
      expect(tables.flatMap(({ columns }) => columns)).not.toContain('summary')
      expect(await agent.all('SELECT title FROM conversations')).toEqual([{ title: 'd' }])
      await mustAgree(agent)
    })
  })

  test('holds a value of an enum that came later, keeps its edits on it, and goes on writing to that row', async () => {
    await withCentre(next, async (database, server) => {
      const user = await server.user(database)
      await using agent = await VersionedAgent.open(thisBuild, {
        path: storeFile(),
        user,
        url: server.url,
      })
      const [edited, other] = [newId(), newId()]
      await agent.write(incident(edited, 'disk'), incident(other, 'net'))
      await drained(agent)
      await database.query(`UPDATE incidents SET status = 'closed', closed_at = now()`)
      await database.query(`UPDATE incidents SET status = 'archived'`)
      await agent.write(['UPDATE incidents SET title = ? WHERE id = ?', 'disk full', edited])
      await drained(agent)
      expect(await agent.all('SELECT title, status FROM incidents ORDER BY title')).toEqual([
        { title: 'disk full', status: 'archived' },
        { title: 'net', status: 'archived' },
      ])
      await agent.write(
        ['UPDATE incidents SET root_cause = ? WHERE id = ?', 'logs', edited],
        ['UPDATE incidents SET resolved_at = closed_at WHERE id = ?', other],
      )
      await drained(agent)
      expect(
        await database.query('SELECT title, status, root_cause FROM incidents ORDER BY title'),
      ).toEqual([
        { title: 'disk full', status: 'archived', root_cause: 'logs' },
        { title: 'net', status: 'archived', root_cause: null },
      ])
      expect(refusedOf(await agent.outcomes())).toEqual([])
      await mustAgree(agent)
    })
  })

  test('has its pending edit in sight when a value of an enum that came later arrives under it', async () => {
    await withCentre(next, async (database, server) => {
      const user = await server.user(database)
      const path = storeFile()
      const id = newId()
      await using agent = await VersionedAgent.open(thisBuild, { path, user, url: server.url })
      await agent.write(incident(id, 'disk'))
      await drained(agent)
      await database.query(`UPDATE incidents SET status = 'closed', closed_at = now()`)
      await database.query(`UPDATE incidents SET status = 'archived'`)
      // As long as nothing is pushed the edit lies on top of what is pulled.
      await agent.write(['UPDATE incidents SET title = ? WHERE id = ?', 'mine', id])
      await agent.ask('checksums')
      expect(await agent.status()).toMatchObject({ pending: 1 })
      expect(await agent.all('SELECT title, status FROM incidents')).toEqual([
        { title: 'mine', status: 'archived' },
      ])
      expect(await agent.ask('conflicts')).toEqual([])
      await drained(agent)
    })
  })
})

describe('an agent one version newer than its centre', () => {
  test('keeps what the centre does not know, with what needs it, syncs the rest, and sends it after the upgrade', async () => {
    await using database = await centreDatabase(inject('postgresUrl'))
    await using old = await VersionedServer.open(thisBuild, database.url)
    const user = await old.user(database)
    await using agent = await VersionedAgent.open(next, {
      path: storeFile(),
      user,
      url: old.url,
    })
    const [plain, rich, hidden] = [newId(), newId(), newId()]
    const [case1, case2] = [newId(), newId()]
    const ids = [newId(), newId(), newId()]
    await agent.now()
    await agent.write(conversation(plain, user, 'plain'))
    // Held: a column, and what belongs to the row that it makes.
    await agent.write([
      'INSERT INTO conversations (id, user_id, title, summary) VALUES (?, ?, ?, ?)',
      rich,
      user.id,
      'rich',
      'of use',
    ])
    await agent.write(message(ids[0] ?? '', rich, 'needs rich'))
    await agent.write(message(ids[1] ?? '', plain, 'needs plain'))
    // Held: a table; and the deletion of what it needs.
    await agent.write(conversation(hidden, user, 'hidden'))
    await agent.write([
      'INSERT INTO notes (id, conversation_id, body) VALUES (?, ?, ?)',
      newId(),
      hidden,
      'note',
    ])
    await agent.write(['DELETE FROM conversations WHERE id = ?', hidden])
    // Held: a value of an enum, and a later change of the same row.
    await agent.write(incident(case1, 'one'), incident(case2, 'two'))
    await agent.write([
      `UPDATE incidents SET status = 'closed', closed_at = detected_at WHERE id = ?`,
      case1,
    ])
    await agent.write([`UPDATE incidents SET status = 'archived' WHERE id = ?`, case1])
    await agent.write(['UPDATE incidents SET title = ? WHERE id = ?', 'one, done', case1])
    await agent.write(['UPDATE incidents SET title = ? WHERE id = ?', 'two, done', case2])
    await agent.now()

    expect(await agent.status()).toMatchObject({ pending: 6, parked: 6 })
    expect(await database.query('SELECT title FROM conversations ORDER BY title')).toEqual([
      { title: 'hidden' },
      { title: 'plain' },
    ])
    expect(await database.query('SELECT content FROM messages')).toEqual([
      { content: 'needs plain' },
    ])
    expect(await database.query('SELECT title, status FROM incidents ORDER BY title')).toEqual([
      { title: 'one', status: 'closed' },
      { title: 'two, done', status: 'open' },
    ])
    expect(await agent.all('SELECT title, summary FROM conversations ORDER BY title')).toEqual([
      { title: 'plain', summary: null },
      { title: 'rich', summary: 'of use' },
    ])
    expect(await agent.all('SELECT title, status FROM incidents ORDER BY title')).toEqual([
      { title: 'one, done', status: 'archived' },
      { title: 'two, done', status: 'open' },
    ])
    expect(refusedOf(await agent.outcomes())).toEqual([])
    await mustAgree(agent)
    // Asked again and again, nothing is sent and nothing is used up.
    await agent.now()
    await agent.now()
    expect(await agent.status()).toMatchObject({ pending: 6, parked: 6 })

    await old.close()
    await using upgraded = await VersionedServer.open(next, database.url, old.port)
    expect(upgraded.url).toBe(old.url)
    await agent.pulls()
    await drained(agent)
    expect(refusedOf(await agent.outcomes())).toEqual([])
    expect(
      await database.query('SELECT title, summary, priority FROM conversations ORDER BY title'),
    ).toEqual([
      { title: 'plain', summary: null, priority: 3 },
      { title: 'rich', summary: 'of use', priority: 3 },
    ])
    expect(await database.query('SELECT content FROM messages ORDER BY content')).toEqual([
      { content: 'needs plain' },
      { content: 'needs rich' },
    ])
    expect(await database.query('SELECT title, status FROM incidents ORDER BY title')).toEqual([
      { title: 'one, done', status: 'archived' },
      { title: 'two, done', status: 'open' },
    ])
    await mustAgree(agent)
  })

  test('keeps its values of a column when a server that does not know it tells of the row', async () => {
    await using database = await centreDatabase(inject('postgresUrl'))
    await using old = await VersionedServer.open(thisBuild, database.url)
    await using upgraded = await VersionedServer.open(next, database.url)
    const user = await upgraded.user(database)
    const path = storeFile()
    const [talk, edited] = [newId(), newId()]
    await using first = await VersionedAgent.open(next, { path, user, url: upgraded.url })
    await first.write(conversation(talk, user, 'a'), conversation(edited, user, 'e'), [
      'INSERT INTO notes (id, conversation_id, body) VALUES (?, ?, ?)',
      newId(),
      talk,
      'note',
    ])
    await first.write(['UPDATE conversations SET summary = ?, priority = ?', 'kept', 7])
    await drained(first)
    await first.close()

    await using second = await VersionedAgent.open(next, { path, user, url: old.url })
    await second.write(['UPDATE conversations SET priority = 8 WHERE id = ?', edited])
    await database.query(`UPDATE conversations SET title = title || '!'`)
    // What changes meanwhile in a column that the server does not know, it cannot tell.
    await database.query(`UPDATE conversations SET summary = 'unseen' WHERE id = $1`, [talk])
    await second.now()
    expect(
      await second.all('SELECT title, summary, priority FROM conversations ORDER BY title'),
    ).toEqual([
      { title: 'a!', summary: 'kept', priority: 7 },
      { title: 'e!', summary: 'kept', priority: 8 },
    ])
    expect(await second.all('SELECT body FROM notes')).toEqual([{ body: 'note' }])
    expect(await second.status()).toMatchObject({ pending: 1, parked: 1 })
    await mustAgree(second)
    await second.close()

    await using third = await VersionedAgent.open(next, { path, user, url: upgraded.url })
    await drained(third)
    expect(
      await third.all('SELECT title, summary, priority FROM conversations ORDER BY title'),
    ).toEqual([
      { title: 'a!', summary: 'unseen', priority: 7 },
      { title: 'e!', summary: 'kept', priority: 8 },
    ])
    await mustAgree(third)
  })

  test('sends what waited before what came after it, where the upgrade is heard of before that was looked at', async () => {
    await using database = await centreDatabase(inject('postgresUrl'))
    await using old = await VersionedServer.open(thisBuild, database.url)
    const user = await old.user(database)
    await using agent = await VersionedAgent.open(next, {
      path: storeFile(),
      user,
      url: old.url,
    })
    const talk = newId()
    await agent.write(conversation(talk, user, 'a'))
    await agent.write(['UPDATE conversations SET summary = ? WHERE id = ?', 'first', talk])
    await agent.now()
    expect(await agent.status()).toMatchObject({ pending: 1, parked: 1 })
    await agent.write(['UPDATE conversations SET summary = ? WHERE id = ?', 'second', talk])
    await agent.write(conversation(newId(), user, 'of its own'))

    await old.close()
    await using upgraded = await VersionedServer.open(next, database.url, old.port)
    expect(upgraded.url).toBe(old.url)
    // Pulls, and does not push.
    await agent.ask('checksums')
    expect(await agent.status()).toMatchObject({ parked: 0 })
    expect(await agent.all('SELECT summary FROM conversations WHERE id = ?', talk)).toEqual([
      { summary: 'second' },
    ])
    await drained(agent)
    expect(refusedOf(await agent.outcomes())).toEqual([])
    expect(await database.query('SELECT title, summary FROM conversations ORDER BY title')).toEqual(
      [
        { title: 'a', summary: 'second' },
        { title: 'of its own', summary: null },
      ],
    )
    await mustAgree(agent)
  })

  test('loses nothing and doubles nothing to a server of the version before that gets its push first', async () => {
    await using database = await centreDatabase(inject('postgresUrl'))
    await using old = await VersionedServer.open(thisBuild, database.url)
    await using upgraded = await VersionedServer.open(next, database.url)
    const user = await upgraded.user(database)
    const path = storeFile()
    await using first = await VersionedAgent.open(next, { path, user, url: upgraded.url })
    await first.now()
    await first.close()
    // By what it heard last, the centre knows all of this.
    await using second = await VersionedAgent.open(next, { path, user, url: old.url })
    await second.ask('later', 'rich', 'new')
    await second.write(conversation(newId(), user, 'plain'))
    await second.now()
    expect(await second.status()).toMatchObject({ pending: 1, parked: 1 })
    expect(await database.query('SELECT title FROM conversations')).toEqual([{ title: 'plain' }])
    // Whoever waits for it is not told that the centre has it.
    expect(await second.ask('told')).toBe(0)
    await second.close()
    await using third = await VersionedAgent.open(next, { path, user, url: upgraded.url })
    await drained(third)
    expect(await database.query('SELECT title, summary FROM conversations ORDER BY title')).toEqual(
      [
        { title: 'plain', summary: null },
        { title: 'rich', summary: 'new' },
      ],
    )
    await mustAgree(third)
  })
})

describe('an upgrade', () => {
  /** A store of this version with a queue: rows of the tables that change and of one that does not. */
  async function queueUnderV1(
    user: VersionedUser,
    url: string,
    path: string,
  ): Promise<{ talk: string; pending: number }> {
    await using agent = await VersionedAgent.open(thisBuild, { path, user, url })
    const [talk, found, book, run] = [newId(), newId(), newId(), newId()]
    await agent.write(conversation(talk, user, 'known'), incident(found, 'known'), [
      `INSERT INTO runbooks (id, name, steps) VALUES (?, 'book', '[]')`,
      book,
    ])
    await agent.write([
      'INSERT INTO runbook_executions (id, runbook_id, incident_id, executed_by) VALUES (?, ?, ?, ?)',
      run,
      book,
      found,
      user.id,
    ])
    await drained(agent)
    await agent.write(
      ['UPDATE conversations SET title = ?, total_cost_cents = 4 WHERE id = ?', 'edited', talk],
      message(newId(), talk, 'queued'),
    )
    await agent.write(conversation(newId(), user, 'queued'))
    await agent.write(incident(newId(), 'queued'))
    await agent.write([
      `UPDATE incidents SET status = 'acknowledged', acknowledged_at = detected_at WHERE id = ?`,
      found,
    ])
    const { pending } = await agent.status()
    await agent.close()
    return { talk, pending }
  }

  interface Opened {
    readonly path: string
    readonly user: VersionedUser
    readonly url: string
  }

  /** The agent is upgraded, and writes on top of its queue; the centre is not. */
  async function editUpgraded(opened: Opened, talk: string, pending: number): Promise<void> {
    await using agent = await VersionedAgent.open(next, opened)
    // The migration makes tables anew; nothing of that is a change of the user's, and nothing cascades.
    expect(await agent.status()).toMatchObject({ pending })
    expect(await agent.all('SELECT count(*) AS n FROM runbook_executions')).toEqual([{ n: 1 }])
    expect(await agent.all('SELECT title, priority FROM conversations ORDER BY 1')).toEqual([
      { title: 'edited', priority: 3 },
      { title: 'queued', priority: 3 },
    ])
    await agent.write(['UPDATE conversations SET priority = 1 WHERE id = ?', talk])
    await agent.close()
  }

  /** The centre is upgraded, the agent is not. */
  async function drainOld(opened: Opened): Promise<void> {
    await using agent = await VersionedAgent.open(thisBuild, opened)
    await drained(agent)
    expect(refusedOf(await agent.outcomes())).toEqual([])
    await mustAgree(agent)
    await agent.close()
  }

  test.each(['the agent', 'the centre'])(
    'of %s first: a queue written before is accepted after both were upgraded',
    async (first) => {
      await using database = await centreDatabase(inject('postgresUrl'))
      await using old = await VersionedServer.open(thisBuild, database.url)
      const user = await old.user(database)
      const path = storeFile()
      const { talk, pending } = await queueUnderV1(user, old.url, path)
      await database.query(`UPDATE conversations SET description = 'of the centre'`)
      if (first === 'the agent') await editUpgraded({ path, user, url: old.url }, talk, pending)
      await old.close()
      await using upgraded = await VersionedServer.open(next, database.url)
      if (first === 'the centre') await drainOld({ path, user, url: upgraded.url })
      await using agent = await VersionedAgent.open(next, { path, user, url: upgraded.url })
      await drained(agent)
      expect(refusedOf(await agent.outcomes())).toEqual([])
      expect(
        await database.query(
          'SELECT title, description, total_cost_cents, message_count, priority FROM conversations ORDER BY title',
        ),
      ).toEqual([
        {
          title: 'edited',
          description: 'of the centre',
          total_cost_cents: 4,
          message_count: 1,
          priority: first === 'the agent' ? 1 : 3,
        },
        {
          title: 'queued',
          description: null,
          total_cost_cents: 0,
          message_count: 0,
          priority: 3,
        },
      ])
      expect(await database.query('SELECT title, status FROM incidents ORDER BY title')).toEqual([
        { title: 'known', status: 'acknowledged' },
        { title: 'queued', status: 'open' },
      ])
      await mustAgree(agent)
    },
  )

  test('of an agent reads exactly the tables again that gained columns, and keeps what is pending on top', async () => {
    await withCentre(next, async (database, server) => {
      const user = await server.user(database)
      const path = storeFile()
      await using old = await VersionedAgent.open(thisBuild, { path, user, url: server.url })
      const [talk, gone, found, book] = [newId(), newId(), newId(), newId()]
      await old.write(
        conversation(talk, user, 'a'),
        conversation(gone, user, 'gone'),
        incident(found, 'b'),
        message(newId(), talk, 'm'),
        [`INSERT INTO runbooks (id, name, steps) VALUES (?, 'book', '[]')`, book],
      )
      await drained(old)
      await database.query(`UPDATE conversations SET summary = 'read', priority = 5`)
      await database.query(`INSERT INTO notes (conversation_id, body) VALUES ($1, 'n')`, [talk])
      await old.write(['UPDATE conversations SET title = ? WHERE id = ?', 'pending', talk])
      await old.close()
      // While it is away: a row of a table that is read leaves, one of another changes.
      await database.query('DELETE FROM conversations WHERE id = $1', [gone])
      await database.query(`UPDATE runbooks SET description = 'changed'`)

      await using agent = await VersionedAgent.open(next, { path, user, url: server.url })
      // Pulls, and does not push.
      await agent.ask('checksums')
      const pulls = await agent.pulls()
      expect(pulls.map(({ page }) => page)).toEqual([
        expect.objectContaining({
          first: true,
          last: true,
          reason: 'schema_changed',
          tables: [CONVERSATIONS, INCIDENTS, NOTES],
        }),
      ])
      const rows = rowsOf(pulls)
      expect(Object.fromEntries(rows)).toEqual({
        [CONVERSATIONS]: 1,
        [INCIDENTS]: 1,
        [NOTES]: 1,
        // The one that changed, by the log; users, messages and all others are not read.
        9: 1,
      })
      expect(await agent.status()).toMatchObject({ pending: 1, hydrating: false })
      expect(await agent.all('SELECT title, summary, priority FROM conversations')).toEqual([
        { title: 'pending', summary: 'read', priority: 5 },
      ])
      expect(await agent.all('SELECT description FROM runbooks')).toEqual([
        { description: 'changed' },
      ])
      await drained(agent)
      await mustAgree(agent)
      await agent.pulls()
      await agent.now()
      expect((await agent.pulls()).map(({ page }) => page)).not.toContainEqual(expect.anything())
    })
  })

  test('is read on from the page where it was killed', async () => {
    await withCentre(next, async (database, server) => {
      const user = await server.user(database)
      const path = storeFile()
      await database.query(
        `INSERT INTO conversations (user_id, title, summary) SELECT $1, 'c' || g, 's' || g FROM generate_series(1, 6000) g`,
        [user.id],
      )
      await using old = await VersionedAgent.open(thisBuild, { path, user, url: server.url })
      await drained(old)
      await old.write(['UPDATE conversations SET title = ? WHERE title = ?', 'mine', 'c1'])
      await old.close()

      await using killed = VersionedAgent.begin(next, { path, user, url: server.url, start: true })
      await killed.child.line((line) => line.startsWith('{"progress"'))
      await killed.child.kill()

      await using agent = await VersionedAgent.open(next, { path, user, url: server.url })
      await drained(agent)
      expect(
        await agent.all('SELECT count(*) AS n FROM conversations WHERE summary IS NULL'),
      ).toEqual([{ n: 0 }])
      expect((await agent.pulls()).filter(({ page }) => page?.first === true)).toEqual([])
      expect(await agent.all(`SELECT summary FROM conversations WHERE title = 'mine'`)).toEqual([
        { summary: 's1' },
      ])
      await mustAgree(agent)
    })
  })

  test('of a store that is killed in its middle leaves the store of before, whole', async () => {
    await withCentre(thisBuild, async (database, server) => {
      const user = await server.user(database)
      const path = storeFile()
      const { url } = server
      const { pending } = await queueUnderV1(user, url, path)

      process.env['AGENTDB_TEST_HOLD'] = '1'
      await using killed = VersionedAgent.begin(next, { path, user, url })
      delete process.env['AGENTDB_TEST_HOLD']
      await killed.child.line((line) => line === 'migrating')
      await killed.child.kill()

      await using before = await VersionedAgent.open(thisBuild, { path, user, url })
      expect(await before.status()).toMatchObject({ pending })
      expect(await before.all('SELECT max(version) AS version FROM schema_migrations')).toEqual([
        { version: 1 },
      ])
      await before.close()

      await using after = await VersionedAgent.open(next, { path, user, url })
      expect(await after.status()).toMatchObject({ pending })
      await using fresh = await VersionedAgent.open(next, { path: storeFile(), user, url })
      // An upgraded store and a new one differ in nothing that is enforced.
      const triggers = `SELECT name, sql FROM sqlite_master WHERE type IN ('trigger', 'index', 'view') ORDER BY name`
      expect(await after.all(triggers)).toEqual(await fresh.all(triggers))
      await drained(after)
      await mustAgree(after)
    })
  })

  test('cannot be taken back: the program of before opens neither the store nor the database', async () => {
    await withCentre(next, async (database, server) => {
      const user = await server.user(database)
      const path = storeFile()
      await using agent = await VersionedAgent.open(next, { path, user, url: server.url })
      await agent.write(conversation(newId(), user, 'new'))
      await agent.close()
      expect(await VersionedAgent.refusal(thisBuild, path, user)).toBe('STORE_NEWER')
      await expect(VersionedServer.open(thisBuild, database.url)).rejects.toThrow('SCHEMA_UNKNOWN')
      await using again = await VersionedAgent.open(next, { path, user, url: server.url })
      await drained(again)
      expect(await database.query('SELECT title FROM conversations')).toEqual([{ title: 'new' }])
    })
  })

  test(
    'of everything, one after the other under load, loses nothing, doubles nothing and refuses nothing',
    { timeout: 180_000 },
    async () => {
      await using database = await centreDatabase(inject('postgresUrl'))
      await using old = await VersionedServer.open(thisBuild, database.url)
      const { url, port } = old
      const owner = await old.user(database)
      const users = [owner, await old.twin(owner)]
      const paths = [storeFile(), storeFile()]
      const agents = await Promise.all(
        users.map((user, i) =>
          VersionedAgent.open(thisBuild, { path: paths[i] ?? '', user, url, start: true }),
        ),
      )
      const shared = newId()
      await agents[0]?.write(conversation(shared, owner, 'shared'))
      for (const agent of agents) await agent.ask('work', shared)
      // The database is migrated while servers and agents of before are at work.
      const migrating = await VersionedServer.open(next, database.url)
      await migrating.close()
      const rows = 'SELECT count(*)::integer AS rows FROM conversations'
      const [atMigration] = await database.query(rows)
      await old.child.kill()
      await using upgradedServer = await VersionedServer.open(next, database.url, port)
      expect(upgradedServer.url).toBe(url)
      // Until each has met the new server.
      for (const [i, agent] of agents.entries()) await agent.ask('met', `agent ${i}`)
      const worked = await Promise.all(
        agents.map((agent) => agent.ask<{ written: number; counted: number }>('rest')),
      )
      const refused: unknown[] = []
      for (const agent of agents) {
        await agent.now()
        refused.push(...refusedOf(await agent.outcomes()))
        await agent.close()
      }
      const upgraded = await Promise.all(
        users.map((user, i) => VersionedAgent.open(next, { path: paths[i] ?? '', user, url })),
      )
      for (const agent of [...upgraded, ...upgraded]) await drained(agent)
      for (const agent of upgraded) {
        refused.push(...refusedOf(await agent.outcomes()))
        await mustAgree(agent)
        await agent.close()
      }
      expect(refused).toEqual([])
      const written = worked.reduce((sum, one) => sum + one.written, 0)
      const counted = worked.reduce((sum, one) => sum + one.counted, 0)
      expect(written).toBeGreaterThan(Number(atMigration?.['rows']))
      expect(
        await database.query(
          `SELECT (SELECT count(*) FROM conversations WHERE id <> $1)::integer AS conversations,
          (SELECT count(*) FROM messages)::integer AS messages,
          (SELECT count(*) FROM incidents WHERE origin <> 'person')::integer AS incidents,
          (SELECT total_cost_cents FROM conversations WHERE id = $1) AS counted`,
          [shared],
        ),
      ).toEqual([{ conversations: written, messages: written, incidents: written, counted }])
    },
  )
})
