import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest'
import { serve } from '../../server/index.ts'
import { AgentDB } from '../../src/index.ts'
import { createDatabase, type TestDatabase } from '../support/databases.ts'
import { agentdb, agentdbHere, parsed, Program } from './command.ts'

let folder: string

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'agentdb-cli-'))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** The packages of which a command line loads anything, as V8 saw it. */
async function packagesOf(...args: string[]): Promise<string[]> {
  const coverage = mkdtempSync(join(folder, 'coverage-'))
  const ended = await agentdb(args, { NODE_V8_COVERAGE: coverage })
  expect(ended).toMatchObject({ code: 0, stderr: '' })
  const names = readdirSync(coverage).flatMap((file) => {
    const { result } = JSON.parse(readFileSync(join(coverage, file), 'utf8')) as {
      result: { url: string }[]
    }
    return result.flatMap(({ url }) => /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(url)?.[1] ?? [])
  })
  return [...new Set(names)]
}

test('a look into a store loads neither PGlite nor a web server; a centre in a folder loads PGlite', async () => {
  const path = join(folder, 'looked-into.db')
  await (await AgentDB.open({ path })).close()
  const looked = await packagesOf('status', path)
  expect(looked).toContain('better-sqlite3')
  expect(looked).not.toContain('@electric-sql/pglite')
  expect(looked).not.toContain('fastify')
  const data = join(folder, 'pglite-is-loaded')
  const names = ['--email', 'a@b.co', '--username', 'ada']
  expect(await packagesOf('user', 'add', ...names, '--data', data)).toContain(
    '@electric-sql/pglite',
  )
})

describe('help and usage', () => {
  test.each([
    ['', ['serve', 'user', 'token', 'sync', 'status', 'conflicts']],
    ['serve', ['--port', '--database-url', '--data', 'fsync', 'Examples:']],
    ['user add', ['--email', '--role', 'logins come later', 'Examples:']],
    ['token', ['--agent', '--expires', 'Examples:']],
    ['sync', ['--url', 'AGENTDB_TOKEN', '--watch', 'Examples:']],
    ['status', ['--verify', 'Examples:']],
  ])('agentdb %s --help shows its options and examples', async (command, expected) => {
    const ended = await agentdbHere([...command.split(' ').filter((word) => word !== ''), '--help'])
    expect(ended).toMatchObject({ code: 0, stderr: '' })
    for (const words of expected) expect(ended.stdout).toContain(words)
  })

  test.each([
    [['frob'], `unknown command 'frob'`],
    [['serve', '--port', '70000'], 'It must be 0 to 65535'],
    [['serve', '--database-url', 'mysql://x'], 'It must start with postgres://'],
    [
      ['serve', '--database-url', 'postgres://x', '--data', 'y'],
      'give --database-url or --data, not both',
    ],
    [['serve', '--qdrant-write-consistency', '0'], 'It must be a whole number from 1 on'],
    [['serve', '--qdrant-write-consistency', '2'], 'is more than --qdrant-replicas 1'],
    [['serve', '--qdrant-models', 'ada'], 'Write it like text-embedding-3-small:1536'],
    [['serve', '--qdrant-models', 'ada:1536,'], 'not ""'],
    [['serve', '--qdrant-models', 'constructor=ada:4'], 'there is no collection "constructor"'],
    [['serve', '--qdrant-models', 'ada:70000'], 'dimension must be 1 to 65535'],
    [['serve', '--qdrant-models', 'a:4,code_embeddings=a:4'], 'names "a" twice'],
    [['user', 'add', '--email', 'a@b.co'], `required option '--username`],
    [
      ['user', 'add', '--email', 'a@b.co', '--username', 'abc', '--role', 'king'],
      'Allowed choices',
    ],
    [['token', '--user', 'a@b.co', '--agent', 'x', '--expires', 'soon'], 'Write it like 90d'],
    [['sync', 'x.db', '--url', 'ftp://x', '--token', 't'], 'It must start with http://'],
    [['sync', 'x.db', '--url', 'http://x'], `required option '--token`],
    [['status', 'x.db', '--verify'], '--verify needs --url and --token'],
    [['status', 'x.db', '--jsno'], 'Did you mean --json'],
  ])('agentdb %j is refused with 2 and says why, without a stack', async (args, why) => {
    const ended = await agentdbHere(args)
    expect(ended).toMatchObject({ code: 2, stdout: '' })
    expect(ended.stderr).toMatch(/^agentdb: USAGE: /)
    expect(ended.stderr).toContain(why)
    expect(ended.stderr).not.toMatch(/\n\s+at /)
  })

  test('a store or centre that does not exist is not made by a command that reads', async () => {
    const store = join(folder, 'missing.db')
    const data = join(folder, 'missing')
    const status = await agentdbHere(['status', store, '--json'])
    expect(status.code).toBe(1)
    expect(parsed(status)).toMatchObject({ error: { code: 'NOT_FOUND' } })
    const token = await agentdbHere(['token', '--user', 'a@b.co', '--agent', 'x', '--data', data])
    expect(token.code).toBe(1)
    expect(token.stderr).toMatch(/^agentdb: NOT_FOUND: there is no centre in /)
    const again = await agentdbHere(['status', store])
    expect(again.stderr).toMatch(/^agentdb: NOT_FOUND: there is no store /)
  })
})

test('a centre in a folder: user, token, serve, sync, status, and one process at a time', async () => {
  const data = join(folder, 'centre')
  const path = join(folder, 'agent.db')
  const place = ['--data', data, '--json']
  const who = ['--email', 'ada@example.com', '--username', 'ada']
  const added = await agentdb(['user', 'add', ...who, ...place])
  expect(added).toMatchObject({ code: 0, stderr: '' })
  const userId = String(parsed(added)['id'])
  expect(parsed(added)).toMatchObject({ role: 'developer', status: 'active' })

  const issued = await agentdb(['token', '--user', 'Ada@example.com', '--agent', 'cli', ...place])
  expect(parsed(issued)).toMatchObject({ userId, agentId: 'cli' })
  const token = String(parsed(issued)['token'])

  await using server = Program.start('server/cli/main.ts', ['serve', '--port', '0', ...place])
  const { url } = JSON.parse(await server.line(() => true)) as { url: string }

  const inUse = await agentdb(['user', 'add', ...who, '--data', data])
  expect(inUse.code).toBe(1)
  expect(inUse.stderr).toMatch(/^agentdb: DATABASE_IN_USE: another process has .*centre open/)
  expect(inUse.stderr).toContain('stop the server that has the folder open')

  await writeOffline(path, userId)
  const remote = ['--url', url, '--token', token]
  const before = parsed(await agentdb(['status', path, '--json']))
  expect(before).toMatchObject({ userId, email: null, pending: 4, history: null })
  expect(before['oldestPendingAgeMs']).toBeGreaterThanOrEqual(0)

  const synced = await agentdb(['sync', path, ...remote, '--json'])
  expect(synced.code).toBe(0)
  expect(parsed(synced)).toMatchObject({ outcomes: { applied: 3, rejected: 1 }, pending: 0 })
  expect(parsed(synced)).toMatchObject({
    notable: [{ kind: 'rejected', table: 'incidents', reason: 'forbidden' }],
  })

  const verified = await agentdb(['status', path, ...remote, '--verify', '--json'])
  expect(verified.code).toBe(0)
  expect(parsed(verified)).toMatchObject({
    email: 'ada@example.com',
    pending: 0,
    conflicts: { rejected: 1 },
    tables: { conversations: { rows: 1 }, messages: { rows: 1 } },
    verification: { equal: true },
  })

  server.signal('SIGINT')
  expect(await server.ended).toMatchObject({ code: 0, signal: null, stderr: '' })
  const next = await agentdb(['user', 'add', ...who, ...place])
  expect(next.code).toBe(1)
  expect(parsed(next)).toMatchObject({ error: { code: 'CONSTRAINT' } })
}, 180_000)

/** Four local transactions, of which the centre refuses the last: a developer may not delete incidents. */
async function writeOffline(path: string, userId: string): Promise<void> {
  await using db = await AgentDB.open({ path, userId, agentId: 'cli' })
  const conversation = db.conversations.create({ title: 'Deploy help' })
  db.messages.create({ conversation_id: conversation.id, role: 'user', content: 'roll it back' })
  const { id } = db.incidents.create({ title: 'noise', severity: 'low', source: 'test' })
  db.incidents.delete(id)
}

describe('a centre on PostgreSQL, named by DATABASE_URL', () => {
  let database: TestDatabase
  let env: { DATABASE_URL: string }

  beforeAll(async () => {
    database = await createDatabase(inject('postgresUrl'), 'cli')
    env = { DATABASE_URL: database.url }
  })
  afterAll(() => database.drop())

  const add = (name: string) =>
    agentdb(['user', 'add', '--email', `${name}@example.com`, '--username', name, '--json'], env)
  const tokenOf = (user: string) =>
    agentdb(['token', '--user', user, '--agent', 'cli', '--expires', '1h'], env)

  test('users and tokens are made beside a running server; standard output is the token alone', async () => {
    await using server = await serve({ port: 0, databaseUrl: database.url })
    const userId = String(parsed(await add('grace'))['id'])
    const issued = await tokenOf(userId)
    expect(issued).toMatchObject({ code: 0 })
    expect(issued.stdout).toMatch(/^[\w-]+\.[\w-]+\.[\w-]+$/)
    const path = join(folder, 'grace.db')
    await using db = await AgentDB.open({ path, userId, agentId: 'cli' })
    db.conversations.create({ title: 'from the other side' })
    const env2 = { AGENTDB_URL: server.url, AGENTDB_TOKEN: issued.stdout }
    const synced = await agentdb(['sync', path], env2)
    expect(synced).toMatchObject({ code: 0 })
    expect(synced.stdout).toContain('1 applied')
    const rows = await server.db.selectFrom('conversations').select('title').execute()
    expect(rows).toEqual([{ title: 'from the other side' }])
  })

  test('a name that is taken, a user that is unknown and an id that is none are told apart', async () => {
    await add('linus')
    const taken = await add('linus')
    expect(taken.code).toBe(1)
    expect(parsed(taken)).toMatchObject({
      error: {
        code: 'CONSTRAINT',
        message: 'there is already a user with email "linus@example.com"',
      },
    })
    const unknown = await tokenOf('nobody@example.com')
    expect(unknown).toMatchObject({ code: 1, stdout: '' })
    expect(unknown.stderr).toMatch(/^agentdb: NOT_FOUND: the centre has no user/)
    const who = ['--email', 'x', '--username', 'xyz']
    const wrong = await agentdb(['user', 'add', ...who], env)
    expect(wrong).toMatchObject({ code: 2, stdout: '' })
    expect(wrong.stderr).toMatch(/^agentdb: INVALID_VALUE: users\.email is not an address/)
  })

  test('a token of another user is refused with 1, and the queue is kept', async () => {
    await using server = await serve({ port: 0, databaseUrl: database.url })
    const userId = String(parsed(await add('alan'))['id'])
    await add('mallory')
    const { stdout: token } = await tokenOf('mallory@example.com')
    const path = join(folder, 'alan.db')
    await using db = await AgentDB.open({ path, userId })
    db.conversations.create({ title: 'mine' })
    const ended = await agentdb(['sync', path, '--url', server.url, '--token', token, '--json'])
    expect(ended.code).toBe(1)
    expect(parsed(ended)).toMatchObject({ error: { code: 'TOKEN_USER_MISMATCH' } })
    expect(parsed(await agentdb(['status', path, '--json']))).toMatchObject({ pending: 1 })
  })

  test('a centre that is away ends sync with 1, and says that local work goes on', async () => {
    const userId = String(parsed(await add('ken'))['id'])
    const { stdout: token } = await tokenOf('ken@example.com')
    const path = join(folder, 'ken.db')
    await using db = await AgentDB.open({ path, userId })
    db.conversations.create({ title: 'waits' })
    const ended = await agentdb(['sync', path, '--url', 'http://127.0.0.1:9', '--token', token])
    expect(ended.code).toBe(1)
    expect(ended.stderr).toMatch(/agentdb: UNREACHABLE: .*local work goes on/)
    expect(ended.stderr).not.toMatch(/\n\s+at /)
    expect(parsed(await agentdb(['status', path, '--json']))).toMatchObject({ pending: 1 })
  })

  test('sync --watch carries what another process writes, and ends with 0 on Ctrl-C', async () => {
    await using server = await serve({ port: 0, databaseUrl: database.url })
    const userId = String(parsed(await add('barbara'))['id'])
    const { stdout: token } = await tokenOf('barbara@example.com')
    const path = join(folder, 'barbara.db')
    await using db = await AgentDB.open({ path, userId })
    const options = ['--url', server.url, '--token', token, '--watch', '--json']
    // Synced before: with nothing new at the centre, it is live all the same.
    expect(await agentdb(['sync', path, ...options.slice(0, 4)])).toMatchObject({ code: 0 })
    await using watching = Program.start('server/cli/main.ts', ['sync', path, ...options])
    await watching.line((line) => line.includes('"state":"live"'))
    // Refused by the centre: its outcome is told as it comes.
    const { id } = db.incidents.create({ title: 'noise', severity: 'low', source: 'test' })
    db.incidents.delete(id)
    await watching.line((line) => line.includes('"kind":"rejected"'))
    const elsewhere = await agentdb(['sync', path, ...options.slice(0, 4)])
    expect(elsewhere.stderr).toMatch(/^agentdb: SYNC_ELSEWHERE: /)
    watching.signal('SIGINT')
    expect(await watching.ended).toMatchObject({ code: 0, signal: null, stderr: '' })
  })

  test('a difference between store and centre ends status --verify with 1 and names the table', async () => {
    await using server = await serve({ port: 0, databaseUrl: database.url })
    const userId = String(parsed(await add('edsger'))['id'])
    const { stdout: token } = await tokenOf('edsger@example.com')
    const path = join(folder, 'edsger.db')
    await using db = await AgentDB.open({ path, userId })
    db.conversations.create({ title: 'whole' })
    const remote = ['--url', server.url, '--token', token]
    expect(await agentdb(['sync', path, ...remote])).toMatchObject({ code: 0 })
    const { internalsOf } = await import('../../src/internal-for-sync.ts')
    // Written as if it came from the centre: neither captured nor pending.
    internalsOf(db).connection.applying(() =>
      internalsOf(db).connection.run(`UPDATE conversations SET title = 'broken'`),
    )
    const ended = await agentdb(['status', path, ...remote, '--verify', '--json'])
    expect(ended.code).toBe(1)
    expect(parsed(ended)).toMatchObject({
      verification: { equal: false, differing: ['conversations'] },
    })
  })

  test('DEBUG=1 shows the stack', async () => {
    const ended = await agentdb(['status', join(folder, 'none.db')], { DEBUG: '1' })
    expect(ended.stderr).toMatch(/\n\s+at /)
  })

  test('a second server on a port that is taken says so', async () => {
    await using server = await serve({ port: 0, databaseUrl: database.url })
    const { port } = new URL(server.url)
    const ended = await agentdb(['serve', '--port', port], env)
    expect(ended.code).toBe(1)
    expect(ended.stderr).toMatch(/^agentdb: LISTEN_FAILED: cannot listen on /)
    expect(ended.stderr).toContain('choose another --port')
  })
})
