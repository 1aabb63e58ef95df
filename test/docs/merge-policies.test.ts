import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { columnWrite, type TableDefinition } from '../../schema/define.ts'
import { mergeUnit, type MergeUnit } from '../../schema/merge-policy.ts'
import { allTables } from '../../schema/tables.ts'

const policyName = ({ policy }: MergeUnit): string =>
  typeof policy === 'string' ? policy : policy.kind

/** One row a table and policy; columns of a group stand together. Only what agents may change can merge. */
function rowsOf(table: TableDefinition): string[] {
  const cells = new Map<string, Set<string>>()
  for (const column of Object.keys(table.columns)) {
    if (columnWrite(table, column) !== 'always') continue
    const unit = mergeUnit(table, column)
    const columns = unit.columns.map((name) => `\`${name}\``).join('+')
    const name = policyName(unit)
    cells.set(name, (cells.get(name) ?? new Set()).add(columns))
  }
  return [...cells]
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(
      ([policy, columns]) => `| \`${table.name}\` | \`${policy}\` | ${[...columns].join(', ')} |`,
    )
}

test('the table of merge policies in the documents is that of the schema', () => {
  const text = readFileSync(new URL('../../docs/ARCHITECTURE.md', import.meta.url), 'utf8')
  const [, table = ''] = text.split('| table | merges as | columns |\n| --- | --- | --- |\n')
  const documented = table.slice(0, table.indexOf('\n\n')).split('\n')
  expect(documented).toEqual(allTables.flatMap(rowsOf))
})

test('the documents say which tables let a stale delete win', () => {
  const text = readFileSync(new URL('../../docs/ARCHITECTURE.md', import.meta.url), 'utf8')
  const [, listed = ''] = /say `record` \(([^)]*)\)/.exec(text) ?? []
  const tables = allTables.filter(({ staleDelete }) => staleDelete === 'record')
  expect(listed).toBe(tables.map(({ name }) => `\`${name}\``).join(', '))
})
