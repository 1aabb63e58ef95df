import type { BenchRow, SkippedRow, Target } from '../report/row.ts'

/** `full` for figures to quote, `quick` for a look, `tiny` for the tests, which only ask whether it still runs. */
export type Size = 'full' | 'quick' | 'tiny'

export interface BenchContext {
  /** A role that may create databases on a real PostgreSQL; undefined where there is none, with the reason. */
  readonly postgres: { readonly url: string } | { readonly missing: string }
}

export interface Workload {
  readonly name: string
  /** What the numbers are to show. */
  readonly claim: string
  readonly needsPostgres: boolean
  /** Too long for a run of all: it takes part when `--only` names it. */
  readonly onlyWhenNamed?: boolean
  run(size: Size, context: BenchContext): Promise<BenchRow[]>
}

interface Definition<P> {
  readonly name: string
  readonly claim: string
  readonly sizes: Readonly<Record<Size, P>>
  readonly onlyWhenNamed?: boolean
}

export function localWorkload<P>(
  definition: Definition<P> & { readonly run: (parameters: P) => Promise<BenchRow[]> },
): Workload {
  const { name, claim, sizes, onlyWhenNamed = false, run } = definition
  return { name, claim, needsPostgres: false, onlyWhenNamed, run: (size) => run(sizes[size]) }
}

interface PlannedRow {
  readonly name: string
  readonly targets: readonly Target[]
}

/** Without PostgreSQL each of its rows is there, skipped, with the reason. */
export function postgresWorkload<P>(
  definition: Definition<P> & {
    /** What it measures, for where it cannot. */
    readonly rows: readonly PlannedRow[] | ((parameters: P) => readonly PlannedRow[])
    readonly run: (parameters: P, postgresUrl: string) => Promise<BenchRow[]>
  },
): Workload {
  const { name, claim, sizes, rows, run } = definition
  return {
    name,
    claim,
    needsPostgres: true,
    run: async (size, { postgres }) =>
      'url' in postgres
        ? run(sizes[size], postgres.url)
        : (typeof rows === 'function' ? rows(sizes[size]) : rows).map((row): SkippedRow => ({
            kind: 'skipped',
            ...row,
            reason: postgres.missing,
          })),
  }
}
