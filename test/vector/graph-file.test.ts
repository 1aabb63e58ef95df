import { mkdirSync, readFileSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { AgentDB } from '../../src/index.ts'
import { engineNames } from '../../src/vector/graph/engine.ts'
import type { GraphSpec } from '../../src/vector/graph/messages.ts'
import { cacheFiles } from '../../src/vector/graph/vector-graphs.ts'
import { Child } from '../support/child.ts'
import { GraphRun, place, putVectors } from '../support/graphs.ts'
import { applyRows, openHosted, rowsOf, specOf, verifyRows, writeFile } from '../support/hosted.ts'
import { scratchFolder } from '../support/store.ts'
import { nearest, recall } from '../support/random-vectors.ts'

const ROWS = 200

/** After a file was refused all is as if there had been none: built from the rows, and right. */
async function rebuilt(spec: GraphSpec): Promise<{ refused: string | undefined; recall: number }> {
  const { graph, answer } = await openHosted(spec)
  expect(answer).toMatchObject({ isLoaded: false, watermark: 0, counts: { size: 0 } })
  const rows = rowsOf(ROWS, spec.dimension)
  await applyRows(graph, rows)
  const query = new Float32Array(spec.dimension).fill(1)
  const found = await graph.handle({ type: 'search', graph: 1, vector: query, k: 5, ef: 200 })
  const vectors = rows.map(({ id, vector }) => [id, vector] as const)
  return { refused: answer.refused, recall: recall(found, nearest(vectors, query, 5)) }
}

const refusedFor = (reason: RegExp): unknown => ({
  refused: expect.stringMatching(reason) as unknown,
  recall: 1,
})

describe.each(engineNames)('the file of a graph of %s', (engine) => {
  const engines = [engine] as const

  test('brings back the graph', async () => {
    using folder = scratchFolder()
    const path = folder.file('g.hnsw')
    await writeFile(path, engine, rowsOf(ROWS))
    const { graph, answer } = await openHosted(specOf(path, { engines }))
    expect(answer).toMatchObject({ isLoaded: true, watermark: ROWS, counts: { size: ROWS } })
    expect(await verifyRows(graph, rowsOf(ROWS))).toBe(true)
    expect(readdirSync(folder.path)).toEqual(['g.hnsw'])
  })

  test('is refused wherever it is cut short', async () => {
    using folder = scratchFolder()
    const path = folder.file('g.hnsw')
    await writeFile(path, engine, rowsOf(ROWS))
    const bytes = readFileSync(path)
    const cuts = [0, 1, 31, 32, 64, 71, 72, 73, 1000, bytes.length >> 1]
    for (const length of [
      ...cuts,
      ...[1000, 100, 72, 33, 32, 31, 2, 1].map((n) => bytes.length - n),
    ]) {
      writeFileSync(path, bytes.subarray(0, length))
      expect(await rebuilt(specOf(path, { engines }))).toEqual(refusedFor(/./))
    }
    writeFileSync(path, Buffer.concat([bytes, Buffer.alloc(7)]))
    expect(await rebuilt(specOf(path, { engines }))).toEqual(refusedFor(/./))
  })

  test('is refused wherever bits of it flipped', async () => {
    using folder = scratchFolder()
    const path = folder.file('g.hnsw')
    await writeFile(path, engine, rowsOf(ROWS))
    const bytes = readFileSync(path)
    const flip = fc.record({ at: fc.nat(bytes.length - 1), bits: fc.integer({ min: 1, max: 255 }) })
    const flips = fc.uniqueArray(flip, { minLength: 1, maxLength: 4, selector: ({ at }) => at })
    const property = fc.asyncProperty(flips, async (chosen) => {
      const damaged = Buffer.from(bytes)
      for (const { at, bits } of chosen) damaged[at] = (damaged[at] ?? 0) ^ bits
      writeFileSync(path, damaged)
      const { answer } = await openHosted(specOf(path, { engines }))
      expect(answer.isLoaded).toBe(false)
      expect(answer.refused).toBeDefined()
    })
    await fc.assert(property, { numRuns: 300 })
    // The header and the end are small, and chance seldom hits them.
    for (let at = bytes.length - 500; at < bytes.length; at++) {
      const damaged = Buffer.from(bytes)
      damaged[at] = (damaged[at] ?? 0) ^ 1
      writeFileSync(path, damaged)
      const { answer } = await openHosted(specOf(path, { engines }))
      expect(answer.isLoaded, `byte ${at} of ${bytes.length}`).toBe(false)
    }
    expect(await rebuilt(specOf(path, { engines }))).toEqual(refusedFor(/./))
  })
})

describe('the file of a graph', () => {
  test.each<[string, Partial<GraphSpec>, RegExp]>([
    ['another store', { storeId: 'other' }, /another storeId/],
    ['another model', { model: 'other' }, /another model/],
    ['another collection', { collection: 'incident_knowledge' }, /another collection/],
    ['another dimension', { dimension: 9 }, /another dimension/],
    ['another engine', { engines: ['usearch'] }, /another build/],
    ['other edges', { m: 24 }, /another m/],
    ['another construction', { efConstruct: 50 }, /another efConstruct/],
  ])('is refused for %s', async (_what, change, reason) => {
    using folder = scratchFolder()
    const path = folder.file('g.hnsw')
    await writeFile(path, 'hnswlib', rowsOf(ROWS))
    expect(await rebuilt(specOf(path, change))).toEqual(refusedFor(reason))
  })

  test('is refused when it knows changes that the store has not had', async () => {
    using folder = scratchFolder()
    const path = folder.file('g.hnsw')
    await writeFile(path, 'hnswlib', rowsOf(ROWS))
    const { answer } = await openHosted(specOf(path), ROWS - 1)
    expect(answer).toMatchObject({ isLoaded: false, refused: 'it is ahead of the rows' })
    expect((await openHosted(specOf(path), ROWS)).answer.isLoaded).toBe(true)
  })

  test.each<[string, (rows: { id: string; stamp: number }[]) => { id: string; stamp: number }[]]>([
    [
      'a row has another stamp',
      (rows) => rows.map((row, n) => (n === 3 ? { ...row, stamp: 7 } : row)),
    ],
    ['a row is not in it', (rows) => [...rows, { id: 'new', stamp: 7 }]],
    ['it has a row that is not there', (rows) => rows.slice(1)],
    ['there is no row', () => []],
  ])('does not pass when %s', async (_what, change) => {
    using folder = scratchFolder()
    const path = folder.file('g.hnsw')
    await writeFile(path, 'hnswlib', rowsOf(ROWS))
    const { graph } = await openHosted(specOf(path))
    expect(await verifyRows(graph, change(rowsOf(ROWS)))).toBe(false)
  })

  test('is simply built when there is none', async () => {
    using folder = scratchFolder()
    expect(await rebuilt(specOf(folder.file('none.hnsw')))).toEqual({
      refused: undefined,
      recall: 1,
    })
  })

  test('is refused when it is a folder, or something else altogether', async () => {
    using folder = scratchFolder()
    mkdirSync(folder.file('g.hnsw'))
    expect(await rebuilt(specOf(folder.file('g.hnsw')))).toEqual(refusedFor(/cannot be read/))
    writeFileSync(folder.file('text.hnsw'), 'hello '.repeat(1000))
    expect(await rebuilt(specOf(folder.file('text.hnsw')))).toEqual(refusedFor(/no graph/))
  })

  test('what a killed process left behind is removed once it is old, and not before', async () => {
    using folder = scratchFolder()
    const path = folder.file('g.hnsw')
    for (const name of ['.g.hnsw.save-1-abc', '.g.hnsw.load-2-abc', '.other.hnsw.save-1-abc'])
      writeFileSync(folder.file(name), 'x')
    const anHourAgo = Date.now() / 1000 - 3600
    utimesSync(folder.file('.g.hnsw.save-1-abc'), anHourAgo, anHourAgo)
    utimesSync(folder.file('.other.hnsw.save-1-abc'), anHourAgo, anHourAgo)
    await openHosted(specOf(path))
    expect(readdirSync(folder.path)).toEqual(['.g.hnsw.load-2-abc', '.other.hnsw.save-1-abc'])
  })
})

describe('a process', () => {
  test('on a full disk searches on, says so, and saves once there is space', async () => {
    using folder = scratchFolder()
    await using child = Child.start('child-graph-full-disk.ts', [folder.file('a.db')])
    const told = JSON.parse(await child.line((line) => line.startsWith('{'))) as {
      kinds: string[]
      whileFull: { found: number; problem: string; files: string[] }
      after: { found: number; problem?: string; files: string[] }
    }
    expect(told.kinds.slice(0, 2)).toEqual(['ready', 'save-failed'])
    expect(told.whileFull.found).toBe(10)
    expect(told.whileFull.problem).toContain('cannot be written')
    expect(told.whileFull.files).toEqual([])
    expect(told.after.found).toBe(10)
    expect(told.after.problem).toBeUndefined()
    expect(told.after.files).toHaveLength(1)
  })

  test.each(engineNames)(
    'killed while it saves leaves a whole file of %s, or none',
    async (engine) => {
      using folder = scratchFolder()
      const path = folder.file('g.hnsw')
      const seen = new Set<boolean>()
      for (let round = 0; round < 5; round++) {
        if (round === 2) rmSync(path, { force: true })
        {
          await using child = Child.start('child-graph-saver.ts', [path, engine])
          await child.line((line) => line === `saving ${1 + round}`)
          await child.kill()
        }
        const { graph, answer } = await openHosted(
          specOf(path, { engines: [engine], dimension: 64 }),
        )
        expect(answer.refused).toBeUndefined()
        seen.add(answer.isLoaded)
        const rows = answer.isLoaded ? rowsOf(2000, 64) : []
        expect(await verifyRows(graph, rows)).toBe(true)
      }
      expect(seen.has(true)).toBe(true)
    },
  )

  test('shares the file with another one: each follows the rows, either may save, what lies there is whole', async () => {
    using folder = scratchFolder()
    const path = folder.file('a.db')
    const db = await AgentDB.open({ path })
    const rows = rowsOf(3000)
    const ids = rows.map((_, n) => `00000000-0000-7000-8000-${n.toString(16).padStart(12, '0')}`)
    const vectors = rows.map(({ vector }, n) => [ids[n] ?? '', vector] as const)
    putVectors(db, vectors.slice(0, 1200))
    await using run = new GraphRun(db)
    await using child = Child.start('child-graph-neighbour.ts', [path])
    await run.whole()
    await run.event('saved')
    await child.line((line) => line === 'ready')
    const seen = run.events.length
    const printed = child.lines.length
    putVectors(db, vectors.slice(1200))
    await run.whole()
    await run.event('saved', seen)
    await child.line((line, n) => n >= printed && line.startsWith('saved'))
    const [id, vector] = vectors.at(-1) ?? ['', new Float32Array()]
    child.send(JSON.stringify([...vector]))
    expect(await child.line((line) => line.startsWith('found'))).toBe(`found ${id} of 3000`)
    await child.kill()
    await run.graphs.close()
    await using third = new GraphRun(db)
    const graph = await third.whole()
    expect(third.events.map(({ kind }) => kind)).not.toContain('file-refused')
    expect(await graph.search(vector, 1, 200)).toMatchObject([{ id }])
    expect(readdirSync(`${path}-vectors`).filter((name) => !name.startsWith('.'))).toEqual([
      cacheFiles(path, place)?.usearch.split('/').at(-1),
    ])
    await db.close()
  })
})
