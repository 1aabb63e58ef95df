import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { Program } from './command.ts'

let folder: string

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'agentdb-examples-'))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

test('the first program of the README runs as pasted, twice on the same store', async () => {
  const readme = readFileSync(new URL('../../README.md', import.meta.url), 'utf8')
  const [, program = ''] = /```ts\n([\s\S]*?)```/.exec(readme) ?? []
  const pasted = join(folder, 'pasted.mts')
  writeFileSync(pasted, program)
  for (let round = 1; round <= 2; round++) {
    await using run = Program.start(pasted, [], { cwd: folder })
    const ended = await run.ended
    expect(ended).toMatchObject({ code: 0, stderr: '' })
    expect(ended.stdout).toContain('roll it back')
  }
})

test('quickstart finds by search what it has stored', async () => {
  await using run = Program.start('examples/quickstart.ts', [], { cwd: folder })
  const ended = await run.ended
  expect(ended).toMatchObject({ code: 0, stderr: '' })
  expect(ended.stdout).toContain('How do I roll it back?')
  expect(ended.stdout).toMatch(/To roll back a release, deploy the tag before it\. 1\.00/)
})

test('search finds by words, by vectors and by both, over several kinds of rows', async () => {
  await using run = Program.start('examples/search.ts', [], { cwd: folder })
  const ended = await run.ended
  expect(ended).toMatchObject({ code: 0, stderr: '' })
  expect(ended.stdout.split('\n').slice(0, 5)).toEqual([
    'messages: the **checkout** is **slow** again',
    'incidents: **Checkout** answers slowly',
    'documentation_embeddings: If the **checkout** is **slow**, look at the pool of connections first.',
    'talks: Night shift',
    'code: {',
  ])
})

test('two agents end with the same incident, and the title that lost is on record', async () => {
  await using run = Program.start('examples/two-agents.ts', [], { cwd: folder })
  const ended = await run.ended
  expect(ended).toMatchObject({ code: 0, stderr: '' })
  const same = '"Checkout is down in eu-west", acknowledged, caused by release 412'
  expect(ended.stdout).toContain(`laptop: ${same}\ndesktop: ${same}`)
  expect(ended.stdout).toMatch(/laptop keeps on record: .*Checkout: payment times out/s)
})

test('a write that the centre refuses is told to the program and sent again under another name', async () => {
  await using run = Program.start('examples/conflicts.ts', [], { cwd: folder })
  const ended = await run.ended
  expect(ended).toMatchObject({ code: 0, stderr: '' })
  expect(ended.stdout).toBe(
    [
      'refused: insert runbooks, unique',
      `[ 'Roll back', 'Roll back, with a queue' ]`,
      'conflicts left: 0',
    ].join('\n'),
  )
})

test('an agent does better the second time, with what it has learned', async () => {
  await using run = Program.start('examples/memory.ts', [], { cwd: folder })
  const ended = await run.ended
  expect(ended).toMatchObject({ code: 0, stderr: '' })
  expect(ended.stdout).toBe(
    [
      'Find my first order: 0 lessons known, failure',
      'Find the date of my first order: 1 lessons known, success',
      'failure: Read every page (helped 1)',
      'success: The first order is on the last page (helped 0)',
    ].join('\n'),
  )
})

test('the program of docs/memory.md runs as pasted, twice on the same store', async () => {
  const text = readFileSync(new URL('../../docs/memory.md', import.meta.url), 'utf8')
  const [, program = ''] = /```ts\n([\s\S]*?)```/.exec(text) ?? []
  const pasted = join(folder, 'memory.mts')
  writeFileSync(pasted, program)
  for (const known of [false, true]) {
    await using run = Program.start(pasted, [], { cwd: folder })
    const ended = await run.ended
    expect(ended).toMatchObject({ code: 0, stderr: '' })
    expect(ended.stdout.includes('## Title Read every page')).toBe(known)
  }
})
