import { sql, type Transaction } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Stored } from '../../schema/codec.ts'
import { agentColumns, columnWrite, mustColumn, references } from '../../schema/define.ts'
import type { UserRole } from '../../schema/enums.ts'
import { mustTable, tableNames, type TableName } from '../../schema/tables.ts'
import type { CentralDatabase } from '../../schema/types.ts'
import { newId } from '../../schema/values/id.ts'
import type { WireOutcome } from '../../sync/protocol/messages.ts'
import {
  createUser,
  databaseKinds,
  SECRET_MARK,
  startCentreOn,
  type Centre,
  type TestUser,
} from '../support/centre.ts'
import { newRowIds, samplePatch, sampleRow, type RowIds } from '../support/sample-rows.ts'
import {
  errorAnswer,
  insert,
  newTransactionId,
  pushRequest,
  remove,
  rowsByTable,
  update,
  WireClient,
  wireClient,
  type WireMutation,
} from '../support/wire-client.ts'

/** Stands in every text of the victim's rows; whoever else reads it was told too much. */
const VICTIM_MARK = 'victim-private'

const roles = ['admin', 'developer', 'operator', 'viewer'] as const satisfies readonly UserRole[]

/** Tables whose rows are their user's alone, whatever the role of who asks. */
const privateTables = [
  'sessions',
  'conversations',
  'messages',
  'workflows',
  'workflow_executions',
  'step_executions',
  'audit_logs',
  'embeddings',
  'memory_trajectories',
  'memory_items',
] as const satisfies readonly TableName[]

type Op = 'insert' | 'update' | 'delete'

/** Written from the requirements (SA-012), not from the code: what a role may do with what others made. */
const sharedWrites: Partial<Record<TableName, Partial<Record<Op, readonly UserRole[]>>>> = {
  incidents: {
    insert: ['admin', 'developer', 'operator'],
    update: ['admin', 'developer', 'operator'],
    delete: ['admin', 'operator'],
  },
  runbooks: {
    insert: ['admin', 'developer', 'operator'],
    update: ['admin', 'developer', 'operator'],
    delete: ['admin'],
  },
}

const mayWrite = (role: UserRole, table: TableName, op: Op): boolean =>
  sharedWrites[table]?.[op]?.includes(role) ?? false

/** The world of one centre: a victim with a row in every table, and a stranger of each role. */
interface World {
  readonly centre: Centre
  readonly victim: TestUser
  readonly rows: RowIds
  /** A conversation that the victim had and deleted. */
  readonly deleted: string
  readonly strangers: Readonly<Record<UserRole, TestUser>>
}

async function createWorld(centre: Centre): Promise<World> {
  const victim = await createUser(centre, { role: 'operator' })
  const rows: RowIds = { ...newRowIds(), users: victim.id }
  const deleted = newId()
  await centre.db
    .updateTable('users')
    .set({ preferences: { theme: VICTIM_MARK }, last_login_ip: '10.9.9.9' })
    .where('id', '=', victim.id)
    .execute()
  await centre.db
    .insertInto('sessions')
    .values({
      id: rows.sessions,
      user_id: victim.id,
      token_hash: `${SECRET_MARK}-token`,
      refresh_token_hash: `${SECRET_MARK}-refresh`,
      ip_address: '10.9.9.9',
      user_agent: VICTIM_MARK,
      expires_at: '2099-01-01T00:00:00.000000Z',
    })
    .execute()
  const client = await wireClient(centre, victim)
  const made = tableNames.filter((name) => name !== 'users' && name !== 'sessions')
  await client.push([
    ...made.map((name) => [
      insert(name, sampleRow(name, rows[name], victim.id, rows, VICTIM_MARK)),
    ]),
    [update('incidents', rows.incidents, { assigned_to: victim.id })],
    [update('conversations', rows.conversations, { session_id: rows.sessions })],
    [insert('conversations', sampleRow('conversations', deleted, victim.id, rows, VICTIM_MARK))],
    [remove('conversations', deleted)],
  ])
  expect(await client.outcomes()).toEqual([])
  const strangers = {} as Record<UserRole, TestUser>
  for (const role of roles) strangers[role] = await createUser(centre, { role })
  return { centre, victim, rows, deleted, strangers }
}

/** Every row of the domain and of its stamps, as text; equal only if nobody wrote anything. */
async function dump({ db }: Centre): Promise<Record<string, string[]>> {
  const out: Record<string, string[]> = {}
  for (const name of [...tableNames, 'sync.row_meta']) {
    const { rows } = await sql
      .raw<{ row: string }>(`SELECT to_jsonb(t)::text AS row FROM ${name} t ORDER BY 1`)
      .execute(db)
    out[name] = rows.map(({ row }) => row)
  }
  return out
}

interface Attempt {
  readonly name: string
  readonly mutation: WireMutation
  /** The same with an id that nobody has, where it differs. */
  readonly unknown: WireMutation | undefined
}

/** Everything that a stranger of a role could try on the victim and may not. */
function attempts({ victim, rows, deleted, strangers }: World, role: UserRole): Attempt[] {
  const stranger = strangers[role]
  const out: Attempt[] = []
  for (const table of tableNames) {
    if (!mayWrite(role, table, 'update'))
      out.push({
        name: `update ${table}`,
        mutation: update(table, rows[table], samplePatch[table]),
        unknown: update(table, newId(), samplePatch[table]),
      })
    if (!mayWrite(role, table, 'delete'))
      out.push({
        name: `delete ${table}`,
        mutation: remove(table, rows[table]),
        unknown: remove(table, newId()),
      })
    if (!mayWrite(role, table, 'insert')) {
      out.push({
        name: `insert ${table} in the victim's name`,
        mutation: insert(table, sampleRow(table, newId(), victim.id, rows)),
        unknown: undefined,
      })
    }
  }
  for (const table of ['conversations', 'workflows', 'embeddings', 'memory_items'] as const)
    out.push({
      name: `insert ${table} over the victim's row`,
      mutation: insert(table, sampleRow(table, rows[table], stranger.id, rows)),
      unknown: undefined,
    })
  out.push(
    {
      name: 'update of what the victim deleted',
      mutation: update('conversations', deleted, { title: 'x' }),
      unknown: update('conversations', newId(), { title: 'x' }),
    },
    {
      name: 'delete of what the victim deleted',
      mutation: remove('conversations', deleted),
      unknown: remove('conversations', newId()),
    },
  )
  return out
}

/** References that a stranger could set in rows of its own to rows it may not see. */
function referenceAttempts({ rows, strangers }: World, role: UserRole): Attempt[] {
  const stranger = strangers[role]
  const attempt = (table: TableName, column: string, target: TableName): Attempt => {
    const id = newId()
    const own: Record<string, Stored> = sampleRow(table, id, stranger.id, rows)
    return {
      name: `reference ${table}.${column}`,
      mutation: insert(table, { ...own, [column]: rows[target] }),
      unknown: insert(table, { ...own, [column]: newId() }),
    }
  }
  return privateTables.flatMap((table) =>
    references(mustTable(table))
      .filter(({ target }) => (privateTables as readonly string[]).includes(target))
      .map(({ column, target }) => attempt(table, column, target as TableName)),
  )
}

/** An outcome without what the sender itself put in: its number and its ids. */
function anonymous(outcome: WireOutcome | undefined, ids: readonly string[]): unknown {
  if (outcome === undefined) return 'applied'
  let text = JSON.stringify({ ...outcome, seq: 0 })
  for (const id of ids) text = text.replaceAll(id, 'ID')
  return JSON.parse(text) as unknown
}

const idsIn = ({ id, values = {} }: WireMutation): string[] => [
  id,
  ...Object.values(values).filter((value): value is string =>
    /^[0-9a-f-]{36}$/.test(String(value)),
  ),
]

describe.each(databaseKinds)('a stranger’s token on %s:', (kind) => {
  let world: World
  let centre: Centre

  beforeAll(async () => {
    centre = await startCentreOn(kind)
    world = await createWorld(centre)
  })

  afterAll(async () => {
    await centre[Symbol.asyncDispose]()
  })

  test.each(roles)(
    'a %s changes nothing of the victim, and is told nothing but forbidden',
    async (role) => {
      const client = await wireClient(centre, world.strangers[role])
      const tried = [...attempts(world, role), ...referenceAttempts(world, role)]
      expect(tried.length).toBeGreaterThan(30)
      const before = await dump(centre)
      await client.push(
        tried.flatMap(({ mutation, unknown }) =>
          unknown === undefined ? [[mutation]] : [[mutation], [unknown]],
        ),
      )
      const outcomes = await client.outcomes()
      expect(await dump(centre)).toEqual(before)
      let seq = 0
      const next = (): WireOutcome | undefined => {
        seq++
        return outcomes.find((outcome) => outcome.seq === seq)
      }
      for (const { name, mutation, unknown } of tried) {
        const outcome = next()
        expect([name, outcome?.kind, outcome?.reason]).toEqual([name, 'rejected', 'forbidden'])
        if (unknown === undefined) continue
        const unseen = anonymous(next(), idsIn(unknown))
        if (!isHidden(role, mutation.table)) continue
        expect([name, anonymous(outcome, idsIn(mutation))]).toEqual([name, unseen])
        expect(JSON.stringify(outcome)).not.toContain(VICTIM_MARK)
      }
      expect(outcomes).toHaveLength(seq)
      const text = JSON.stringify(outcomes)
      for (const secret of [world.victim.email, SECRET_MARK, '10.9.9.9', 'preferences'])
        expect(text).not.toContain(secret)
    },
  )

  test('a user that an outcome shows to a stranger is its public profile', async () => {
    const client = await wireClient(centre, world.strangers.developer)
    const outcome = await client.outcomeOf(update('users', world.victim.id, { full_name: 'x' }))
    expect(outcome).toMatchObject({ kind: 'rejected', reason: 'forbidden' })
    const shown = Object.keys(outcome?.server_row ?? {})
    expect(shown.filter((name) => !mustColumn(mustTable('users'), name).profile)).toEqual([])
  })

  /** Rows of a table that a role may see are no secret; what it hears of them may differ. */
  const isHidden = (role: UserRole, table: TableName): boolean =>
    (privateTables as readonly string[]).includes(table) ||
    (role === 'viewer' && (table === 'incidents' || table === 'runbook_executions'))

  test.each(roles)('a %s reads nothing of the victim', async (role) => {
    const { victim, rows } = world
    const client = await wireClient(centre, world.strangers[role])
    const pull = await client.pull()
    const byTable = rowsByTable(pull)
    for (const table of privateTables) {
      const ids = byTable.get(table)?.map(({ id }) => id) ?? []
      expect([table, ids.includes(rows[table])]).toEqual([table, false])
    }
    expect(pull.outcomes).toEqual([])
    expect(pull.conflicts).toEqual([])
    const sees = (table: TableName): boolean =>
      byTable.get(table)?.some(({ id }) => id === rows[table]) === true
    expect({
      incidents: sees('incidents'),
      runbooks: sees('runbooks'),
      runbook_executions: sees('runbook_executions'),
    }).toEqual({
      incidents: role !== 'viewer',
      runbooks: true,
      runbook_executions: role !== 'viewer',
    })
    const profile = byTable.get('users')?.find(({ id }) => id === victim.id)
    expect(profile).toMatchObject({
      username: victim.username,
      full_name: `Full ${victim.username}`,
      role: 'operator',
      email: `${victim.id}@hidden.invalid`,
      preferences: null,
      mfa_enabled: null,
      last_login_at: null,
    })
    const text = JSON.stringify(pull)
    expect(text).not.toContain(victim.email)
    expect(text).not.toContain(SECRET_MARK)
    expect(text).not.toContain('10.9.9.9')
  })

  test('what the victim writes reaches nobody else, neither at once nor as a tombstone', async () => {
    const { victim, strangers } = world
    const mine = await wireClient(centre, victim)
    const theirs = await Promise.all(
      roles.map(async (role) => {
        const client = await wireClient(centre, strangers[role])
        return { client, cursor: (await client.pull()).cursor }
      }),
    )
    const start = await mine.pull()
    const id = newId()
    // Pushes of their own: what is made and deleted in one server transaction never was.
    await mine.push([
      [insert('conversations', sampleRow('conversations', id, victim.id, world.rows, VICTIM_MARK))],
    ])
    await mine.push([[update('conversations', id, { title: `${VICTIM_MARK} 2` })]])
    await mine.push([[remove('conversations', id)]])
    await mine.push([[update('users', victim.id, { preferences: `{"theme":"${VICTIM_MARK} 3"}` })]])
    const own = await mine.pull(start.cursor)
    expect(own.gone).toEqual([[mustTable('conversations').number, id]])
    for (const { client, cursor } of theirs) {
      const pull = await client.pull(cursor)
      expect(pull.page).toBe(null)
      expect(pull.position).toBeGreaterThanOrEqual(own.position)
      expect(pull.gone).toEqual([])
      expect([...rowsByTable(pull).values()].flat().map((row) => row['id'])).toEqual([victim.id])
      expect(JSON.stringify(pull)).not.toContain(VICTIM_MARK)
      expect(JSON.stringify(pull)).not.toContain(victim.email)
    }
  })

  test('the owner itself may do what strangers may not, so that a refusal is one', async () => {
    const owner = await createUser(centre, { role: 'admin' })
    const client = await wireClient(centre, owner)
    const ids: RowIds = { ...newRowIds(), users: owner.id }
    const made = tableNames.filter((name) => name !== 'users' && name !== 'sessions')
    const mutations = [
      ...made.map((name) => insert(name, sampleRow(name, ids[name], owner.id, ids))),
      update('users', owner.id, samplePatch.users),
      ...made
        .filter((name) => name !== 'audit_logs')
        .map((name) => update(name, ids[name], samplePatch[name])),
      ...made
        .filter((name) => name !== 'audit_logs')
        .toReversed()
        .map((name) => remove(name, ids[name])),
    ]
    await client.push(mutations.map((mutation) => [mutation]))
    expect(await client.outcomes()).toEqual([])
  })

  test.each(roles)('a %s writes the shared rows as its role says', async (role) => {
    const client = await wireClient(centre, world.strangers[role])
    for (const table of ['incidents', 'runbooks'] as const) {
      const id = newId()
      const victim = await wireClient(centre, world.victim)
      await victim.push([[insert(table, sampleRow(table, id, world.victim.id, world.rows))]])
      const said = {
        insert: await client.outcomeOf(
          insert(table, sampleRow(table, newId(), client.clientId, world.rows)),
        ),
        update: await client.outcomeOf(update(table, id, samplePatch[table])),
        delete: await client.outcomeOf(remove(table, id)),
      }
      for (const op of ['insert', 'update', 'delete'] as const)
        expect([table, op, said[op]?.reason ?? 'applied']).toEqual([
          table,
          op,
          mayWrite(role, table, op) ? 'applied' : 'forbidden',
        ])
    }
  })
})

describe('columns that agents may not write', () => {
  let centre: Centre
  let user: TestUser
  let rows: RowIds

  beforeAll(async () => {
    centre = await startCentreOn('postgres')
    const world = await createWorld(centre)
    user = world.victim
    rows = world.rows
  })

  afterAll(async () => {
    await centre[Symbol.asyncDispose]()
  })

  const values: Readonly<Record<string, Stored>> = {
    role: 'admin',
    status: 'active',
    email: 'other@example.org',
    username: 'other',
    message_count: 99,
    total_tokens: 99,
    failed_login_attempts: 0,
    mfa_enabled: 0,
  }

  /** Some value of the column's kind; what it is does not matter, it must never be looked at. */
  const valueOf = (table: TableName, column: string): Stored => {
    const fixed = values[column]
    if (fixed !== undefined && mustColumn(mustTable(table), column).kind !== 'enum') return fixed
    switch (mustColumn(mustTable(table), column).kind) {
      case 'uuid':
        return newId()
      case 'integer':
        return 7
      case 'boolean':
        return 1
      case 'timestamp':
        return '2020-01-01T00:00:00.000000Z'
      case 'json':
        return '{}'
      case 'vector':
        return new Uint8Array(8)
      case 'enum':
        return mustColumn(mustTable(table), column).values?.[0] ?? ''
      default:
        return 'forged'
    }
  }

  test('stay as they are, one by one, in every table, also on rows of one’s own', async () => {
    const client = await wireClient(centre, user)
    const tried = tableNames.flatMap((table) =>
      Object.keys(mustTable(table).columns)
        .filter((column) => columnWrite(mustTable(table), column) !== 'always')
        .map((column) => update(table, rows[table], { [column]: valueOf(table, column) })),
    )
    const named = tried.map(({ table, values: patch = {} }) => `${table}.${Object.keys(patch)[0]}`)
    for (const must of [
      'users.role',
      'users.status',
      'users.email',
      'users.password_hash',
      'users.mfa_secret',
      'users.api_key_hash',
      'users.locked_until',
      'conversations.message_count',
      'conversations.total_tokens',
      'conversations.user_id',
      'messages.content',
      'workflows.user_id',
      'sessions.token_hash',
      'sessions.expires_at',
      'audit_logs.created_at',
    ])
      expect(named).toContain(must)
    const before = await dump(centre)
    await client.push(tried.map((mutation) => [mutation]))
    const outcomes = await client.outcomes()
    expect(await dump(centre)).toEqual(before)
    expect(outcomes.map(({ kind, reason }) => [kind, reason])).toEqual(
      tried.map(() => ['rejected', 'forbidden']),
    )
  })

  test('spoil the whole transaction that carries them, and no other', async () => {
    const client = await wireClient(centre, user)
    const { nonce, position } = await client.pull()
    await client.push(
      [
        [update('users', user.id, { full_name: 'Not this', role: 'admin' })],
        [
          update('users', user.id, { full_name: 'Nor this' }),
          update('users', user.id, { role: 'admin' }),
        ],
        [update('users', user.id, { timezone: 'Europe/Paris' })],
      ],
      { base: { nonce, position } },
    )
    expect((await client.outcomes()).map(({ seq, n, kind }) => [seq, n, kind])).toEqual([
      [1, 0, 'rejected'],
      [2, 0, 'dependency_failed'],
      [2, 1, 'rejected'],
    ])
    const row = await centre.db
      .selectFrom('users')
      .select(['full_name', 'role', 'timezone'])
      .where('id', '=', user.id)
      .executeTakeFirstOrThrow()
    expect(row).toEqual({
      full_name: `Full ${user.username}`,
      role: 'operator',
      timezone: 'Europe/Paris',
    })
  })

  test('are refused in an insert, too', async () => {
    const client = await wireClient(centre, user)
    const id = newId()
    const outcome = await client.outcomeOf(
      insert('conversations', { id, user_id: user.id, title: 't', message_count: 99 }),
    )
    expect(outcome).toMatchObject({ kind: 'rejected', reason: 'forbidden' })
    const unknown = await client.outcomeOf(
      insert('conversations', { id: newId(), user_id: user.id, no_such_column: 1 }),
    )
    expect(unknown).toMatchObject({ kind: 'rejected', reason: 'unknown_column' })
    const found = await centre.db
      .selectFrom('conversations')
      .select('id')
      .where('id', '=', id)
      .execute()
    expect(found).toEqual([])
  })

  test('an id in the values that is not the row’s is refused', async () => {
    const client = await wireClient(centre, user)
    const outcome = await client.outcomeOf({
      op: 'insert',
      table: 'conversations',
      id: newId(),
      values: { id: newId(), user_id: user.id },
    })
    expect(outcome).toMatchObject({ kind: 'rejected', reason: 'invalid_value' })
  })
})

describe.each(databaseKinds)('a client id on %s', (kind) => {
  let centre: Centre

  beforeAll(async () => {
    centre = await startCentreOn(kind)
  })

  afterAll(async () => {
    await centre[Symbol.asyncDispose]()
  })

  test('is not taken by a push that is refused', async () => {
    const [a, b] = [await createUser(centre), await createUser(centre)]
    const client = await wireClient(centre, a, 'laptop')
    const token = await centre.server.issueToken({ userId: b.id, agentId: 'laptop' })
    const thief = new WireClient(centre.url, token, client.clientId)
    const id = newId()
    const mutations = [insert('conversations', { id, user_id: b.id, title: 'theirs' })]
    const ahead = { seq: 2, id: newTransactionId(), mutations }
    const refused = await thief.mustFail(pushRequest(client.clientId, [ahead]))
    expect(refused).toMatchObject({ status: 409, code: 'FORKED' })
    await client.push([[insert('conversations', { id, user_id: a.id, title: 'mine' })]])
    expect((await client.pull()).watermark).toEqual(client.last)
  })

  test('serves the user and agent it was bound to, and nobody else moves its watermark', async () => {
    const [a, b] = [await createUser(centre), await createUser(centre)]
    const client = await wireClient(centre, a, 'laptop')
    const id = newId()
    await client.push([[insert('conversations', { id, user_id: a.id, title: 'mine' })]])
    const last = client.last
    if (last === null) throw new Error('nothing was pushed')
    const thieves = [
      {
        token: await centre.server.issueToken({ userId: b.id, agentId: 'laptop' }),
        refusal: { status: 409, code: 'STORE_FORKED' },
      },
      {
        token: await centre.server.issueToken({ userId: a.id, agentId: 'phone' }),
        refusal: { status: 403, code: 'FORBIDDEN' },
      },
    ]
    for (const { token, refusal } of thieves) {
      const thief = new WireClient(centre.url, token, client.clientId)
      const stolen = { seq: 2, id: newTransactionId(), mutations: [remove('conversations', id)] }
      const refused = await thief.mustFail(pushRequest(client.clientId, [stolen], last))
      expect(refused).toMatchObject(refusal)
      const pull = await errorAnswer(await thief.pullRaw())
      expect(pull).toMatchObject(refusal)
      expect(JSON.stringify([refused, pull])).not.toContain(a.id)
    }
    expect((await client.pull()).watermark).toEqual(last)
    await client.push([[update('conversations', id, { title: 'still mine' })]])
    const [row] = await centre.db
      .selectFrom('conversations')
      .select('title')
      .where('id', '=', id)
      .execute()
    expect(row).toEqual({ title: 'still mine' })
  })

  test('that two users claim at once is one’s only', async () => {
    const [a, b] = [await createUser(centre), await createUser(centre)]
    const clientId = newId()
    const clients = await Promise.all(
      [a, b].map(
        async (user) =>
          new WireClient(
            centre.url,
            await centre.server.issueToken({ userId: user.id, agentId: 'x' }),
            clientId,
          ),
      ),
    )
    const answers = await Promise.all(clients.map((client) => client.pullRaw()))
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200, 409]))
  })

  test('of one agent gives its outcomes to no other agent of the user', async () => {
    const user = await createUser(centre)
    const [first, second] = [await wireClient(centre, user), await wireClient(centre, user)]
    const { cursor } = await second.pull()
    await first.push([[update('conversations', newId(), { title: 'x' })]])
    expect(await first.outcomes()).toHaveLength(1)
    for (const pull of [await second.pull(cursor), await second.pull()]) {
      expect(pull.outcomes).toEqual([])
      expect(pull.watermark).toBeNull()
    }
  })
})

describe('an account', () => {
  let centre: Centre

  beforeAll(async () => {
    centre = await startCentreOn('postgres')
  })

  afterAll(async () => {
    await centre[Symbol.asyncDispose]()
  })

  const everyRoute = async (client: WireClient, mutation: WireMutation): Promise<Response[]> => {
    const seq = (client.last?.seq ?? 0) + 1
    const transaction = { seq, id: newTransactionId(), mutations: [mutation] }
    return [
      await client.send(pushRequest(client.clientId, [transaction], client.last)),
      await client.pullRaw(),
      await fetch(new URL('/sync/v1/checksum', centre.url), {
        headers: { authorization: `Bearer ${client.token}` },
      }),
    ]
  }

  test.each(['suspended', 'inactive', 'deleted'] as const)(
    'that is %s is refused everywhere, although its token is good',
    async (how) => {
      const user = await createUser(centre)
      const client = await wireClient(centre, user)
      const { cursor } = await client.pull()
      await centre.db
        .updateTable('users')
        .set(how === 'deleted' ? { deleted_at: '2026-01-01T00:00:00.000000Z' } : { status: how })
        .where('id', '=', user.id)
        .execute()
      const id = newId()
      const answers = await everyRoute(client, insert('conversations', { id, user_id: user.id }))
      for (const response of [...answers, await client.pullRaw({ cursor })]) {
        expect(await errorAnswer(response)).toEqual({
          status: 403,
          code: 'FORBIDDEN',
          message: `the account is ${how}`,
        })
      }
      const found = await centre.db
        .selectFrom('conversations')
        .select('id')
        .where('id', '=', id)
        .execute()
      expect(found).toEqual([])
    },
  )

  test('that does not exist is refused', async () => {
    const client = await wireClient(centre, { id: newId() })
    const answers = await everyRoute(client, remove('conversations', newId()))
    for (const response of answers)
      expect(await errorAnswer(response)).toMatchObject({ status: 401, code: 'UNAUTHORIZED' })
  })

  test('whose role is lowered loses at once what the role gave, with the same token and cursor', async () => {
    const user = await createUser(centre, { role: 'operator' })
    const client = await wireClient(centre, user)
    const id = newId()
    await client.push([[insert('incidents', { id, title: 't', severity: 'low', source: 's' })]])
    const before = await client.pull()
    expect(
      rowsByTable(before)
        .get('incidents')
        ?.map((row) => row['id']),
    ).toContain(id)
    await centre.db.updateTable('users').set({ role: 'viewer' }).where('id', '=', user.id).execute()
    const after = await client.pull(before.cursor)
    expect(after.gone).toContainEqual([mustTable('incidents').number, id])
    expect(rowsByTable(after).get('incidents') ?? []).toEqual([])
    const outcome = await client.outcomeOf(update('incidents', id, { title: 'still me' }))
    expect(outcome).toMatchObject({ kind: 'rejected', reason: 'forbidden' })
  })
})

describe.each(databaseKinds)('row-level security alone, without our checks, on %s:', (kind) => {
  let world: World
  let centre: Centre

  beforeAll(async () => {
    centre = await startCentreOn(kind)
    world = await createWorld(centre)
  })

  afterAll(async () => {
    await centre[Symbol.asyncDispose]()
  })

  /** Runs as the role of pushes, as a user; what it wrote is thrown away. */
  async function as<T>(
    user: TestUser | undefined,
    work: (run: (text: string) => Promise<Result>) => Promise<T>,
  ): Promise<T> {
    const rollback = new Error('thrown away')
    let value: { of: T } | undefined
    await centre.db
      .transaction()
      .execute(async (transaction) => {
        if (user !== undefined)
          await sql`SELECT set_config('app.user_id', ${user.id}, true), set_config('app.user_role', ${user.role}, true)`.execute(
            transaction,
          )
        await sql`SET LOCAL ROLE llm_copilot_app`.execute(transaction)
        value = { of: await work((text) => attempt(transaction, text)) }
        throw rollback
      })
      .catch((error: unknown) => {
        if (error !== rollback) throw error
      })
    if (value === undefined) throw new Error('the work did not run')
    return value.of
  }

  interface Result {
    /** Rows that were read or written; the error's code where it was refused. */
    readonly touched: number | string
    readonly rows: readonly Record<string, unknown>[]
  }

  async function attempt(transaction: Transaction<CentralDatabase>, text: string): Promise<Result> {
    await sql`SAVEPOINT attempt`.execute(transaction)
    try {
      const result = await sql.raw<Record<string, unknown>>(text).execute(transaction)
      const touched = Number(result.numAffectedRows ?? result.rows.length)
      return { touched, rows: result.rows }
    } catch (error) {
      await sql`ROLLBACK TO SAVEPOINT attempt`.execute(transaction)
      return { touched: String((error as { code?: unknown }).code), rows: [] }
    }
  }

  const literal = (value: Stored): string =>
    value instanceof Uint8Array
      ? `'\\x${Buffer.from(value).toString('hex')}'`
      : value === null
        ? 'NULL'
        : `'${String(value)}'`

  const insertSql = (table: TableName, values: Record<string, Stored>): string =>
    `INSERT INTO ${table} (${Object.keys(values).join(', ')}) VALUES (${Object.values(values).map(literal).join(', ')})`

  const updateSql = (table: TableName, id: string): string => {
    const [[column, value] = ['', null]] = Object.entries(samplePatch[table])
    return `UPDATE ${table} SET ${column} = ${literal(value)} WHERE id = '${id}'`
  }

  const nothing: (number | string)[] = [0, '42501']

  describe.each(roles)('a %s', (role) => {
    test.each(tableNames)('does not touch what is not its own in %s', async (table) => {
      const { victim, rows, strangers } = world
      const hidden =
        (privateTables as readonly string[]).includes(table) ||
        table === 'users' ||
        (role === 'viewer' && table !== 'runbooks')
      const forbidden: Record<string, string> = {
        update: updateSql(table, rows[table]),
        delete: `DELETE FROM ${table} WHERE id = '${rows[table]}'`,
        insert: insertSql(table, sampleRow(table, newId(), victim.id, rows)),
      }
      for (const op of ['insert', 'update', 'delete'] as const)
        if (mayWrite(role, table, op)) delete forbidden[op]
      if (hidden) forbidden['select'] = `SELECT id FROM ${table} WHERE id = '${rows[table]}'`
      const touched = await as(strangers[role], async (run) => {
        const out: Record<string, number | string> = {}
        for (const [op, text] of Object.entries(forbidden)) out[op] = (await run(text)).touched
        return out
      })
      expect(Object.entries(touched).filter(([, how]) => !nothing.includes(how))).toEqual([])
      // A write that finds no row is nothing; an insert always has one and must be refused.
      expect(touched['insert'] ?? '42501').toBe('42501')
    })
  })

  test('lets a user change its own rows, so that a refusal is one', async () => {
    const { victim, rows } = world
    await as(victim, async (run) => {
      for (const table of tableNames.filter(
        (name) => name !== 'sessions' && name !== 'audit_logs',
      )) {
        const changed = await run(updateSql(table, rows[table]))
        expect([table, changed.touched]).toEqual([table, 1])
      }
      for (const table of ['conversations', 'workflows', 'embeddings', 'memory_items'] as const) {
        const made = await run(insertSql(table, sampleRow(table, newId(), victim.id, rows)))
        expect([table, made.touched]).toEqual([table, 1])
        const gone = await run(`DELETE FROM ${table} WHERE id = '${rows[table]}'`)
        expect([table, gone.touched]).toEqual([table, 1])
      }
    })
  })

  test('refuses a user the columns that agents may not write, on its own row', async () => {
    const { victim } = world
    await as(victim, async (run) => {
      for (const set of [
        `role = 'admin'`,
        `status = 'active'`,
        `email = 'x@example.org'`,
        `password_hash = 'x'`,
        `failed_login_attempts = 0`,
        `id = gen_random_uuid()`,
      ]) {
        const { touched } = await run(`UPDATE users SET ${set} WHERE id = '${victim.id}'`)
        expect([set, touched]).toEqual([set, '42501'])
      }
      const counted = await run('UPDATE conversations SET message_count = 99')
      expect(counted.touched).toBe('42501')
      const content = await run(`UPDATE messages SET content = 'forged'`)
      expect(content.touched).toBe('42501')
    })
  })

  test('refuses the columns that only the centre may see', async () => {
    await as(world.victim, async (run) => {
      for (const table of tableNames) {
        const hidden = Object.keys(mustTable(table).columns).filter(
          (name) => !agentColumns(mustTable(table)).includes(name),
        )
        for (const column of hidden) {
          const { touched } = await run(`SELECT ${column} FROM ${table}`)
          expect([table, column, touched]).toEqual([table, column, '42501'])
        }
      }
      expect((await run('SELECT * FROM users')).touched).toBe('42501')
    })
  })

  test('shows nothing and takes nothing while no user is set', async () => {
    const { victim, rows } = world
    await as(undefined, async (run) => {
      for (const table of tableNames) {
        const read = await run(`SELECT id FROM ${table}`)
        expect(nothing).toContain(read.touched)
        expect(nothing).toContain((await run(updateSql(table, rows[table]))).touched)
        expect(nothing).toContain(
          (await run(`DELETE FROM ${table} WHERE id = '${rows[table]}'`)).touched,
        )
        const made = await run(insertSql(table, sampleRow(table, newId(), victim.id, rows)))
        expect([table, made.touched]).toEqual([table, '42501'])
      }
    })
  })

  test('keeps the role away from the schema of sync, the views, and DDL', async () => {
    await as(world.strangers.admin, async (run) => {
      for (const text of [
        'SELECT * FROM sync.log',
        'SELECT * FROM sync.row_meta',
        'SELECT * FROM sync.client',
        'SELECT * FROM sync.outcome',
        'SELECT * FROM sync.setting',
        `UPDATE sync.client SET seq = 0`,
        'SELECT * FROM active_sessions',
        'SELECT * FROM audit_logs_default',
        'TRUNCATE conversations',
        'CREATE TABLE public.mine (id int)',
        'ALTER TABLE conversations DISABLE ROW LEVEL SECURITY',
        'DROP TABLE conversations',
        `SET session_replication_role = replica`,
      ]) {
        const { touched } = await run(text)
        expect([text, touched]).toEqual([text, '42501'])
      }
    })
  })

  test('cannot be used to ask whose an unseen row is', async () => {
    const { rows, strangers } = world
    await as(strangers.admin, async (run) => {
      for (const table of [
        'conversations',
        'messages',
        'workflows',
        'embeddings',
        'memory_items',
      ] as const) {
        const { touched } = await run(`SELECT sync.keys_of_${table}('${rows[table]}')`)
        expect([table, touched]).toEqual([table, '42501'])
      }
    })
  })
})
