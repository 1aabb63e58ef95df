import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, inject, test } from 'vitest'
import { createDatabase } from '../support/databases.ts'
import { Program } from '../cli/command.ts'

/** Where the demo makes its files, so that what it leaves behind is seen. */
let temporary: string

beforeEach(() => {
  temporary = mkdtempSync(join(tmpdir(), 'agentdb-demo-test-'))
})
afterEach(() => rmSync(temporary, { recursive: true, force: true }))

const filesOfDemo = (): string[] =>
  readdirSync(temporary).filter((name) => name.startsWith('agentdb-demo-'))

const DEMO = 'bench/demo/main.ts'

interface Summary {
  readonly ok: boolean
  readonly database: string
  readonly checks: readonly { readonly ok: boolean }[]
}

const summaryOf = (stdout: string): Summary =>
  JSON.parse(stdout.split('\n').at(-1) ?? '') as Summary

describe.each(['PGlite', 'PostgreSQL'])('on %s', (kind) => {
  test('the demo holds: both kills, every outcome, equal checksums, nothing lost', async () => {
    await using database =
      kind === 'PGlite' ? undefined : await createDatabase(inject('postgresUrl'), 'demo')
    const env = { TMPDIR: temporary, ...(database && { DATABASE_URL: database.url }) }
    await using demo = Program.start(DEMO, ['--json'], { env })
    const ended = await demo.ended
    expect(ended).toMatchObject({ code: 0, stderr: '' })
    const summary = summaryOf(ended.stdout)
    expect(summary).toMatchObject({
      ok: true,
      serverKill: { signal: 'SIGKILL' },
      agentKill: { signal: 'SIGKILL', rowsKept: 0 },
      outcomes: { B: { merged: 2, superseded: 1, rejected: 1, dependency_failed: 1 } },
      workflowVersions: [1, 2],
      checksums: { equal: true },
      rows: { lost: 0, twice: 0, refusedAndKept: 1 },
    })
    expect(summary.database).toContain(kind)
    expect(summary.checks.length).toBeGreaterThanOrEqual(20)
    expect(summary.checks.every(({ ok }) => ok)).toBe(true)
    expect(filesOfDemo()).toEqual([])
  }, 180_000)
})

test('a database that cannot be reached fails the demo with the reason, also as JSON', async () => {
  const env = { TMPDIR: temporary, DATABASE_URL: 'postgres://nobody@127.0.0.1:9/none' }
  await using demo = Program.start(DEMO, ['--json'], { env })
  const ended = await demo.ended
  expect(ended.code).toBe(1)
  expect(ended.stderr).toContain('unset it to run on PGlite')
  expect(summaryOf(ended.stdout)).toMatchObject({ ok: false })
})

test('Ctrl-C ends the demo, its processes and its files', async () => {
  await using demo = Program.start(DEMO, [], { env: { TMPDIR: temporary } })
  const line = await demo.line((text) => text.includes('agent A'))
  const pid = Number(/process (\d+)/.exec(line)?.[1])
  expect([isAlive(pid), filesOfDemo().length]).toEqual([true, 1])
  demo.signal('SIGINT')
  expect(await demo.ended).toMatchObject({ code: 130 })
  expect(isAlive(pid)).toBe(false)
  expect(filesOfDemo()).toEqual([])
})

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}
