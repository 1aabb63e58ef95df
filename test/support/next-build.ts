import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { sqliteMigration, postgresMigration } from './next-migrations.ts'

/** A build of the package whose programs can be run. */
export interface Build {
  readonly root: string
  /** A script of `test/support/`. */
  script(name: string): string
}

const repository = fileURLToPath(new URL('../../', import.meta.url))

const buildIn = (root: string): Build => ({
  root,
  script: (name) => pathToFileURL(join(root, 'test/support', name)).href,
})

/** The build that this file is part of. */
export const thisBuild: Build = buildIn(repository)

/** A text that must be in a file exactly once, and what takes its place. */
type Patch = readonly [file: string, text: string, replacement: string]

/** What the next version changes: a column of each kind, an enum's value, a table, an upcast. */
const patches: readonly Patch[] = [
  ['schema/version.ts', 'SCHEMA_VERSION = 1\n', 'SCHEMA_VERSION = 2\n'],
  [
    'schema/enums.ts',
    `  'resolved',\n  'closed',\n])`,
    `  'resolved',\n  'closed',\n  'archived',\n], { archived: 2 })`,
  ],
  [
    'schema/transitions.ts',
    `  closed: ['open'],\n`,
    `  closed: ['open', 'archived'],\n  archived: [],\n`,
  ],
  [
    'schema/tables/conversations.ts',
    '    archived_at: timestamp(),\n',
    '    archived_at: timestamp(),\n    summary: text().since(2),\n    priority: integer().notNull().default(3).since(2),\n',
  ],
  [
    'schema/tables/incidents.ts',
    '    updated_at: timestamp().notNull().defaultNow().derived(),\n',
    `    updated_at: timestamp().notNull().defaultNow().derived(),\n    origin: varchar(20).notNull().default('unknown').since(2),\n`,
  ],
  [
    'schema/tables.ts',
    `import { messages } from './tables/messages.ts'\n`,
    `import { messages } from './tables/messages.ts'\nimport { notes } from './tables/notes.ts'\n`,
  ],
  [
    'schema/tables.ts',
    '  memory_items: memoryItems,\n}',
    '  memory_items: memoryItems,\n  notes,\n}',
  ],
  [
    'schema/upcasts.ts',
    'upcasts: readonly Upcast[] = []',
    `upcasts: readonly Upcast[] = [{ to: 2, values: ({ table, op, values }) =>
  table === 'incidents' && op === 'insert' ? { ...values, origin: values['source'] === 'pager' ? 'person' : 'machine' } : values }]`,
  ],
  // Stops in the middle of a migration, where a test can kill it.
  [
    'src/sqlite/migrator.ts',
    '        setApplying(connection, 0)\n',
    `        setApplying(connection, 0)
        if (migration.version === 2 && process.env['AGENTDB_TEST_HOLD'] !== undefined) {
          process.stdout.write('migrating\\n')
          Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)
        }\n`,
  ],
]

const notes = `import { defineTable, text, uuid } from '../define.ts'

export const notes = defineTable('notes', {
  number: 15,
  since: 2,
  comment: 'Notes on conversations',
  writeClass: 'row',
  owner: { kind: 'parent', table: 'conversations', column: 'conversation_id' },
  columns: {
    id: uuid().notNull().defaultNewId(),
    conversation_id: uuid().notNull().references('conversations', 'cascade'),
    body: text().notNull(),
  },
})
`

/** Makes the next version of the package in a folder: our sources, patched, with migrations from ours to it. */
export function makeNextBuild(folder: string): Build {
  for (const name of ['schema', 'src', 'sync', 'server', 'package.json'])
    cpSync(join(repository, name), join(folder, name), { recursive: true })
  symlinkSync(join(repository, 'node_modules'), join(folder, 'node_modules'))
  for (const script of ['child-versioned-agent.ts', 'child-versioned-centre.ts']) {
    mkdirSync(join(folder, 'test/support'), { recursive: true })
    cpSync(join(repository, 'test/support', script), join(folder, 'test/support', script))
  }
  writeFileSync(join(folder, 'schema/tables/notes.ts'), notes)
  for (const patch of patches) apply(folder, patch)
  const before = schemaOf(repository)
  const after = schemaOf(folder)
  const migrations = join(folder, 'schema/migrations')
  writeFileSync(
    join(migrations, 'sqlite/V002_next.sql'),
    sqliteMigration(before.sqlite, after.sqlite),
  )
  writeFileSync(
    join(migrations, 'postgres/V002_next.sql'),
    postgresMigration(before.postgres, after.postgres),
  )
  return buildIn(folder)
}

/** The next version with its simulator, which can open agents of ours beside its own. */
export function makeNextSimulator(folder: string): Build {
  const build = makeNextBuild(folder)
  for (const name of ['test/sim', 'test/support', 'tsconfig.json'])
    cpSync(join(repository, name), join(folder, name), { recursive: true })
  return build
}

function apply(folder: string, [file, text, replacement]: Patch): void {
  const path = join(folder, file)
  const source = readFileSync(path, 'utf8')
  const found = source.split(text).length - 1
  if (found !== 1)
    throw new Error(
      `test/support/next-build.ts: its patch of ${file} matches ${found} times, not once; fit it to what the file says now:\n${text}`,
    )
  writeFileSync(
    path,
    source.replace(text, () => replacement),
  )
}

/** The whole schema of a build, in both dialects, as its definitions compile to it. */
function schemaOf(root: string): { sqlite: string; postgres: string } {
  const load = (file: string): string => JSON.stringify(pathToFileURL(join(root, file)).href)
  const program = `
    const { sqliteSchema } = await import(${load('schema/sqlite/ddl.ts')})
    const { postgresSchema } = await import(${load('schema/postgres/ddl.ts')})
    process.stdout.write(JSON.stringify({ sqlite: sqliteSchema(), postgres: postgresSchema() }))`
  const output = execFileSync(
    process.execPath,
    ['--import', 'tsx', '--input-type=module', '-e', program],
    { cwd: dirname(join(repository, 'package.json')), encoding: 'utf8', maxBuffer: 2 ** 26 },
  )
  return JSON.parse(output) as { sqlite: string; postgres: string }
}
