import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, test } from 'vitest'
import { newId } from '../../schema/values/id.ts'
import type { Conflict } from '../../src/index.ts'
import {
  createUser,
  openAgent,
  startCentre,
  type Centre,
  type TestAgent,
} from '../support/centre.ts'
import { createDatabase, type TestDatabase } from '../support/databases.ts'
import { agentdb, agentdbHere, parsed } from './command.ts'

let folder: string
let database: TestDatabase
let centre: Centre
let a: TestAgent
let path: string

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'agentdb-conflicts-'))
  database = await createDatabase(inject('postgresUrl'), 'cli_conflicts')
  centre = await startCentre({ databaseUrl: database.url })
})
afterAll(async () => {
  await centre[Symbol.asyncDispose]()
  await database.drop()
  rmSync(folder, { recursive: true, force: true })
})
beforeEach(async () => {
  path = join(folder, `${newId()}.db`)
  a = await openAgent(centre, await createUser(centre), { path })
})
afterEach(() => a.close())

/** Two runbooks of a name that the centre has: one with a run of it, in one transaction. */
async function refuse(name: string): Promise<{ runbook: Conflict; run: Conflict }> {
  const user = await createUser(centre)
  await using other = await openAgent(centre, user)
  other.db.runbooks.create({ name, steps: [] })
  await other.sync.now()
  a.db.transaction(() => {
    const { id } = a.db.runbooks.create({ name, steps: [{ title: 'x'.repeat(100) }], tags: ['t'] })
    a.db.runbookExecutions.create({ runbook_id: id })
  })
  await a.sync.now()
  const [runbook] = a.db.syncConflicts.list({ table: 'runbooks' })
  const [run] = a.db.syncConflicts.list({ table: 'runbook_executions' })
  return { runbook: runbook as Conflict, run: run as Conflict }
}

const conflicts = (...args: string[]) => agentdbHere(['conflicts', ...args, '--store', path])

describe('agentdb conflicts', () => {
  test.each([
    ['', ['list', 'show', 'retry', 'discard', 'Examples:']],
    ['list', ['--store', '--state', '--table', '--json', 'Examples:']],
    ['show', ['--store', 'Example:']],
    ['retry', ['--patch', 'Examples:']],
    ['discard', ['--store', 'Example:']],
  ])('%s --help shows its options and examples', async (command, expected) => {
    const args = ['conflicts', command, '--help'].filter((word) => word !== '')
    const ended = await agentdbHere(args)
    expect(ended).toMatchObject({ code: 0, stderr: '' })
    for (const words of expected) expect(ended.stdout).toContain(words)
  })

  test.each([
    [['list'], `required option '--store`],
    [['list', '--store', 'x', '--state', 'lost'], 'Allowed choices are rejected'],
    [['list', '--store', 'x', '--table', 'secrets'], 'Allowed choices are users'],
    [['list', '--store', 'x', '--limit', '0'], 'It must be a whole number from 1'],
    [['show', '--store', 'x'], `missing required argument 'id'`],
    [['retry', newId(), '--store', 'x', '--patch', '{title:1}'], 'It must be a JSON object'],
    [['retry', newId(), '--store', 'x', '--patch', '[1]'], 'It must be a JSON object'],
    [['discard', '--store', 'x'], `missing required argument 'id'`],
  ])('%j is refused with 2 and says why', async (args, why) => {
    const ended = await agentdbHere(['conflicts', ...args])
    expect(ended).toMatchObject({ code: 2, stdout: '' })
    expect(ended.stderr).toContain(why)
  })

  test('list says that there are none, and in one line each what there is, newest first', async () => {
    expect(await conflicts('list')).toMatchObject({ code: 0, stdout: 'no conflicts\n', stderr: '' })
    const { runbook, run } = await refuse(path)
    const listed = await conflicts('list')
    expect(listed.code).toBe(0)
    const lines = listed.stdout.trimEnd().split('\n')
    expect(lines).toHaveLength(3)
    expect(lines[0]).toMatch(/^id +state +write +reason +age$/)
    expect(lines.slice(1).toSorted()).toEqual([
      expect.stringMatching(
        `^${runbook.id}  rejected           insert runbooks +unique `,
      ) as string,
      expect.stringMatching(
        `^${run.id}  dependency_failed  insert runbook_executions +sibling `,
      ) as string,
    ])
    expect(listed.stderr).toContain('2 conflicts; both sides of one: agentdb conflicts show')

    const page = parsed(await conflicts('list', '--limit', '1', '--json'))
    expect(page).toMatchObject({ more: true, conflicts: [{ id: run.id }] })
    const of = parsed(
      await conflicts('list', '--state', 'rejected', '--row', runbook.rowId, '--json'),
    )
    expect(of).toMatchObject({ more: false, conflicts: [{ id: runbook.id, mine: { name: path } }] })
  })

  test('show puts before, mine and theirs side by side and marks what differs', async () => {
    const { runbook } = await refuse(path)
    const shown = await conflicts('show', runbook.id)
    expect(shown).toMatchObject({ code: 0, stderr: '' })
    expect(shown.stdout).toMatch(/^ {2}write +insert runbooks [0-9a-f-]{36}$/m)
    expect(shown.stdout).toMatch(/^ {2}reason +unique, 23505, runbooks_name_key$/m)
    expect(shown.stdout).toMatch(/^ +column +before +mine +theirs$/m)
    // Long values are cut, and NULL is told from what nobody says.
    expect(shown.stdout).toMatch(/^ +steps +\[\{"title":"x+\.\.\.$/m)
    expect(shown.stdout).toMatch(/^ +description +null$/m)

    const { id } = a.db.incidents.create({ title: 'first', severity: 'low', source: 'x' })
    const embedding = await a.db.embeddings.put({
      collection: 'incident_knowledge',
      vector: Float32Array.of(1.5, 2),
    })
    await a.sync.now()
    await centre.db
      .updateTable('users')
      .set({ role: 'viewer' })
      .where('id', '=', a.db.userId)
      .execute()
    await centre.db.updateTable('incidents').set({ assigned_to: a.db.userId }).execute()
    a.db.transaction(() => {
      a.db.embeddings.update(embedding.id, { vector: Float32Array.of(0.5, 2) })
      a.db.incidents.update(id, { title: 'mine' })
    })
    await a.sync.now()
    const [refused] = a.db.syncConflicts.list({ row: id })
    const three = await conflicts('show', refused?.id ?? '')
    expect(three.stdout).toMatch(/^\* +title +"first" +"mine" +"first"$/m)
    const [sibling] = a.db.syncConflicts.list({ table: 'embeddings' })
    expect((await conflicts('show', sibling?.id ?? '')).stdout).toMatch(
      /^ +vector +\[1\.5,2\] +\[0\.5,2\]$/m,
    )
    expect(parsed(await conflicts('show', sibling?.id ?? '', '--json'))).toMatchObject({
      mine: { vector: [0.5, 2] },
      base: { vector: [1.5, 2] },
    })
    const again = await conflicts('retry', sibling?.id ?? '', '--patch', '{"vector":[0.25,2]}')
    expect(again).toMatchObject({ code: 0 })
    expect(a.db.embeddings.find(embedding.id)?.vector).toEqual(Float32Array.of(0.25, 2))
  })

  test('retry writes it again beside the agent that has the store open, whose next sync sends it', async () => {
    const { runbook, run } = await refuse(path)
    const early = await conflicts('retry', run.id)
    expect(early).toMatchObject({ code: 1, stdout: '' })
    expect(early.stderr).toMatch(/^agentdb: CONSTRAINT: .*retry conflict [0-9a-f-]{36} first/)
    const name = `${path} 2`
    const retried = await agentdb([
      'conflicts',
      'retry',
      runbook.id,
      '--store',
      path,
      '--patch',
      JSON.stringify({ name }),
    ])
    expect(retried).toMatchObject({ code: 0, stderr: '' })
    expect(retried.stdout).toBe(`wrote runbooks ${runbook.rowId} again; the next sync sends it`)
    const second = await conflicts('retry', run.id, '--json')
    expect(parsed(second)).toMatchObject({ retried: run.id, row: { runbook_id: runbook.rowId } })
    await a.sync.now()
    const rows = await centre.db
      .selectFrom('runbooks')
      .select('id')
      .where('name', '=', name)
      .execute()
    expect(rows).toEqual([{ id: runbook.rowId }])
    expect(parsed(await conflicts('list', '--json'))).toEqual({ conflicts: [], more: false })
  })

  test('discard removes all that it names, or none', async () => {
    const { runbook, run } = await refuse(path)
    const unknown = await conflicts('discard', runbook.id, newId())
    expect(unknown).toMatchObject({ code: 1, stdout: '' })
    expect(unknown.stderr).toMatch(/^agentdb: NOT_FOUND: there is no conflict/)
    expect(a.db.syncConflicts.list()).toHaveLength(2)
    const both = await conflicts('discard', runbook.id, run.id)
    expect(both).toMatchObject({ code: 0, stdout: 'discarded 2 conflicts\n' })
    expect(a.db.syncConflicts.list()).toEqual([])
    const gone = await conflicts('show', runbook.id, '--json')
    expect(gone.code).toBe(1)
    expect(parsed(gone)).toMatchObject({ error: { code: 'NOT_FOUND' } })
  })

  test('what has no outcome yet is refused with advice, and a store that is not there is not made', async () => {
    const { id } = a.db.incidents.create({ title: 'x', severity: 'low', source: 'x' })
    await a.sync.now()
    a.db.incidents.update(id, { title: 'mine' })
    await centre.db.deleteFrom('incidents').execute()
    await a.sync.checksums()
    const [blocked] = a.db.syncConflicts.list({ state: 'blocked' })
    for (const command of ['retry', 'discard']) {
      const ended = await conflicts(command, blocked?.id ?? '')
      expect(ended).toMatchObject({ code: 1, stdout: '' })
      expect(ended.stderr).toMatch(/^agentdb: CONFLICT_PENDING: .*\n {2}bring its outcome first/)
    }
    const missing = await agentdbHere(['conflicts', 'list', '--store', join(folder, 'none.db')])
    expect(missing.stderr).toMatch(/^agentdb: NOT_FOUND: there is no store /)
  })
})
