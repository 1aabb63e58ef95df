/**
 * Migrations between two schemas, made of the statements in which they differ. A person writes them; these are what one
 * would write, and the steps of `docs/ARCHITECTURE.md`, "How to add a column".
 */
const statementsOf = (schema: string): string[] =>
  schema
    .split(/;\n\n(?=\S)/)
    .map((statement) => statement.trim().replace(/;$/, ''))
    .filter((statement) => statement !== '')

function differing(before: string, after: string): string[] {
  const known = new Set(statementsOf(before))
  return statementsOf(after).filter((statement) => !known.has(statement))
}

const tableOf = (statement: string): string | undefined =>
  /^(?:-- .*\n)?CREATE TABLE (\w+)/.exec(statement)?.[1]

/** The lines of columns that a table has now and had not. */
function columnsAdded(before: string, statement: string): string[] {
  const had = statementsOf(before).find((other) => tableOf(other) === tableOf(statement)) ?? ''
  const lines = (text: string): string[] =>
    text.split('\n').map((line) => line.trim().replace(/,$/, ''))
  return lines(statement).filter((line) => /^[a-z]\w+ /.test(line) && !lines(had).includes(line))
}

const isNew = (before: string, statement: string): boolean =>
  !statementsOf(before).some((other) => tableOf(other) === tableOf(statement))

const file = (statements: readonly string[]): string =>
  statements.map((statement) => `${statement};\n`).join('\n')

/** A table whose checks changed is made anew; one that only gained columns is altered. */
export function sqliteMigration(before: string, after: string): string {
  const rebuilt = new Set<string>()
  const first: string[] = []
  for (const statement of differing(before, after)) {
    const table = tableOf(statement)
    if (table === undefined) continue
    const added = columnsAdded(before, statement)
    const names = new Set(added.map((line) => line.split(' ')[0]))
    if (isNew(before, statement)) first.push(statement)
    else if (added.some((line) => line.includes(' IN ('))) {
      rebuilt.add(table)
      const had = statementsOf(before).find((other) => tableOf(other) === table) ?? ''
      const columns = [...had.matchAll(/^ {2}([a-z]\w*) [A-Z]/gm)].map(([, name]) => name)
      first.push(
        statement.replace(`CREATE TABLE ${table} `, `CREATE TABLE ${table}_new `),
        `INSERT INTO ${table}_new (${columns.join(', ')}) SELECT ${columns.join(', ')} FROM ${table}`,
        `DROP TABLE ${table}`,
        `ALTER TABLE ${table}_new RENAME TO ${table}`,
      )
    } else
      first.push(
        ...added
          .filter((line) => names.has(line.split(' ')[0]))
          .map((line) => `ALTER TABLE ${table} ADD COLUMN ${line}`),
      )
  }
  const changed = new Set(differing(before, after))
  const rest = statementsOf(after).flatMap((statement) => {
    if (tableOf(statement) !== undefined) return []
    const on = / ON (\w+)(?: WHEN| \()/.exec(statement.split('\n')[0] ?? '')?.[1]
    const isGone = on !== undefined && rebuilt.has(on)
    if (!isGone && !changed.has(statement)) return []
    const name = /^CREATE TRIGGER (\w+)/.exec(statement)?.[1]
    return name === undefined ? [statement] : [`DROP TRIGGER IF EXISTS ${name}`, statement]
  })
  return file([...first, ...rest])
}

export function postgresMigration(before: string, after: string): string {
  const statements = differing(before, after).flatMap((statement) => {
    const type = /^CREATE TYPE (\w+) AS ENUM \((.*)\)$/.exec(statement)
    if (type !== null) {
      const [, name, values = ''] = type
      const had = statementsOf(before).find((other) => other.startsWith(`CREATE TYPE ${name} `))
      return values
        .split(', ')
        .filter((value) => had?.includes(value) !== true)
        .map((value) => `ALTER TYPE ${name} ADD VALUE ${value}`)
    }
    const table = tableOf(statement)
    if (table !== undefined && !isNew(before, statement))
      return columnsAdded(before, statement).map(
        (line) => `ALTER TABLE ${table} ADD COLUMN ${line}`,
      )
    return [statement.replace(/^CREATE FUNCTION /, 'CREATE OR REPLACE FUNCTION ')]
  })
  return file([...statements, 'REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA sync FROM PUBLIC'])
}
