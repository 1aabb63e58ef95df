import { targetText, type BenchRow, type Unit } from './row.ts'

const headings = ['what', 'unit', 'p50', 'p95', 'p99', 'ratio', 'target', 'met'] as const

/** The rows as a table of text; what a ratio is against and what was not measured stand below it. */
export function renderTable(rows: readonly BenchRow[]): string {
  const cells = [[...headings], ...rows.map(cellsOf)]
  const widths = headings.map((_, i) => Math.max(...cells.map((row) => row[i]?.length ?? 0)))
  const lines = cells.map((row) =>
    row
      .map((cell, i) => (isNumber(i) ? cell.padStart(widths[i] ?? 0) : cell.padEnd(widths[i] ?? 0)))
      .join('  ')
      .trimEnd(),
  )
  lines.splice(1, 0, widths.map((width) => '-'.repeat(width)).join('  '))
  return [...lines, '', ...rows.map(footnote)].join('\n')
}

const isNumber = (column: number): boolean => column >= 2 && column <= 5

function cellsOf(row: BenchRow): string[] {
  const unit: Unit | undefined = row.kind === 'measured' ? row.unit : undefined
  const target = row.targets.map((each) => targetText(each, unit)).join(', ')
  if (row.kind === 'skipped') return [row.name, '', '', '', '', '', target, 'SKIPPED']
  return [
    row.name,
    row.unit,
    formatNumber(row.p50),
    formatNumber(row.p95),
    formatNumber(row.p99),
    `${row.ratio.value.toFixed(2)}x`,
    target,
    row.met ? 'yes' : 'NO',
  ]
}

function footnote(row: BenchRow): string {
  if (row.kind === 'skipped') return `${row.name}: SKIPPED, ${row.reason}`
  const note = row.note === '' ? '' : `; ${row.note}`
  const cpu = row.ratio.cpu === undefined ? '' : ` (processor time ${row.ratio.cpu.toFixed(2)}x)`
  const recall = row.recall === undefined ? '' : `; recall ${row.recall.toFixed(4)}`
  return `${row.name}: ratio against ${row.ratio.against}${cpu}; ${row.samples} samples${recall}${note}`
}

/** Three significant digits below 1000, whole numbers above. */
export function formatNumber(value: number): string {
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString('en')
  return String(Number(value.toPrecision(3)))
}
