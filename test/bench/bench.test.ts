import { describe, expect, inject, test } from 'vitest'
import { HnswlibProcess } from '../../bench/peers/hnswlib.ts'
import { isMissing, requirePeer } from '../../bench/peers/missing.ts'
import { measuredRow, type BenchRow } from '../../bench/report/row.ts'
import { percentiles } from '../../bench/report/statistics.ts'
import { renderTable } from '../../bench/report/table.ts'
import { workloads } from '../../bench/workloads/all.ts'
import type { Workload } from '../../bench/workloads/workload.ts'

const runs = new Map<string, Promise<BenchRow[]>>()

/** What a bench gives at the size of the tests; run once. */
function tinyRun(workload: Workload): Promise<BenchRow[]> {
  const known = runs.get(workload.name)
  if (known !== undefined) return known
  const run = workload.run('tiny', { postgres: { url: inject('postgresUrl') } })
  runs.set(workload.name, run)
  return run
}

/** Why peers that may be missing are missing on this machine; nothing else may be skipped. */
const absent = (): string[] =>
  [requirePeer('sqlite-vec'), requirePeer('@lancedb/lancedb'), HnswlibProcess.program()].flatMap(
    (peer) => (isMissing(peer) ? [peer.missing] : []),
  )

const isTooSmall = (reason: string): boolean => reason.startsWith('the process did not grow for')

describe.each(workloads)('bench $name', (workload) => {
  test('gives rows of finite numbers, each with a target and a ratio', async () => {
    const rows = await tinyRun(workload)

    // A few rows take no memory that the process would have to ask for.
    const skipped = rows.flatMap((row) =>
      row.kind === 'skipped' && !isTooSmall(row.reason) ? [row] : [],
    )
    const measured = rows.filter((row) => row.kind === 'measured')
    expect(measured).not.toHaveLength(0)
    for (const { name, reason } of skipped)
      expect(absent(), `${name} was skipped: ${reason}`).toContain(reason)
    for (const row of measured) {
      const { p50, p95, p99, ratio, samples } = row
      for (const value of [p50, p95, p99, ratio.value, samples])
        expect(value, `${row.name}: ${JSON.stringify(row)}`).toBeGreaterThan(0)
      expect([p50, p95, p99, ratio.value].every(Number.isFinite)).toBe(true)
      expect(row.targets).not.toHaveLength(0)
      expect(ratio.against).not.toBe('')
    }
  })
})

describe.each(workloads.filter(({ needsPostgres }) => needsPostgres))('bench $name', (workload) => {
  test('says which rows are missing without PostgreSQL', async () => {
    const rows = await workload.run('tiny', { postgres: { missing: 'none here' } })
    const measured = await tinyRun(workload)

    expect(rows.map(({ kind }) => kind)).toEqual(measured.map(() => 'skipped'))
    expect(rows.map(({ name }) => name)).toEqual(measured.map(({ name }) => name))
    expect(renderTable(rows)).toContain('SKIPPED, none here')
  })
})

const timed = (unit: 'ms' | 'rows/s', samples: number[], limit: number): BenchRow =>
  measuredRow({
    name: 'x',
    unit,
    samples,
    ratio: { value: 2, against: 'y' },
    targets: [{ metric: 'p95', limit }],
  })

const withRatio = (value: number): BenchRow =>
  measuredRow({
    name: 'x',
    unit: 'rows/s',
    samples: [1],
    ratio: { value, against: 'y' },
    targets: [{ metric: 'ratio', limit: 1.5 }],
  })

describe('the report', () => {
  const hundred = Array.from({ length: 100 }, (_, i) => i + 1)

  test('the tail is the slow end of times and the low end of rates', () => {
    expect(percentiles(hundred)).toEqual({ p50: 50, p95: 95, p99: 99 })
    expect(percentiles(hundred, true)).toEqual({ p50: 51, p95: 6, p99: 2 })
    expect(percentiles([7])).toEqual({ p50: 7, p95: 7, p99: 7 })
  })

  test('a time meets its target from below, a rate from above', () => {
    expect(timed('ms', hundred, 95)).toMatchObject({ met: true })
    expect(timed('ms', hundred, 94)).toMatchObject({ met: false })
    expect(timed('rows/s', hundred, 6)).toMatchObject({ met: true })
    expect(timed('rows/s', hundred, 7)).toMatchObject({ met: false })
  })

  test('a ratio is met at or below its limit, also of a rate', () => {
    expect(withRatio(1.5)).toMatchObject({ met: true })
    expect(withRatio(1.51)).toMatchObject({ met: false })
  })

  test('a recall is met from its limit on', () => {
    const withRecall = (recall: number): BenchRow =>
      measuredRow({
        name: 'x',
        unit: 'us',
        samples: [1],
        ratio: { value: 1, against: 'y' },
        targets: [{ metric: 'recall', limit: 0.99 }],
        recall,
      })
    expect(withRecall(0.99)).toMatchObject({ met: true })
    expect(withRecall(0.98)).toMatchObject({ met: false })
    expect(renderTable([withRecall(0.98)])).toMatch(/recall >= 0.99\s+NO[^]*recall 0.9800/)
  })

  test('a row that misses its target says NO', () => {
    const table = renderTable([timed('ms', hundred, 94)])
    expect(table).toMatch(/x\s+ms\s+50\s+95\s+99\s+2\.00x\s+p95 <= 94 ms\s+NO/)
    expect(table).toContain('ratio against y; 100 samples')
  })
})
