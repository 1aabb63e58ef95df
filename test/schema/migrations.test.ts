/* oxlint-disable unicorn/consistent-function-scoping -- a helper stands beside the tests that it helps */
import { readdirSync, readFileSync } from 'node:fs'

import Database from 'better-sqlite3'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import {
  agentColumns,
  mustColumn,
  type ColumnShape,
  type IndexDefinition,
  type TableDefinition,
} from '../../schema/define.ts'
import { enums } from '../../schema/enums.ts'
import { readMigrations } from '../../schema/migrations.ts'
import { postgresSchema } from '../../schema/postgres/ddl.ts'
import { sqliteSchema } from '../../schema/sqlite/ddl.ts'
import { isLoggedByReference } from '../../schema/sqlite/logged-images.ts'
import { allTables } from '../../schema/tables.ts'
import { SCHEMA_VERSION } from '../../schema/version.ts'
import type { Database as Centre } from '../../server/postgres/database.ts'
import { migrateCentre } from '../../server/postgres/migrator.ts'
import { AgentDB } from '../../src/agent-db.ts'
import {
  openEmptyCentre,
  openMigratedCentre,
  type CentralDatabase,
} from '../support/central-database.ts'
import { connectionOf, openStore, rejectionOf, scratchFolder } from '../support/store.ts'

const folderOf = (dialect: string): URL =>
  new URL(`../../schema/migrations/${dialect}/`, import.meta.url)
const fileOf = (dialect: string, name: string): string =>
  readFileSync(new URL(name, folderOf(dialect)), 'utf8')

const columnsOf = (table: TableDefinition): [string, ColumnShape][] =>
  Object.entries(table.columns).map(([name, { shape }]) => [name, shape])

/** Whether the database itself knows the default; the rest is the repository's. */
const hasDefault = (shape: ColumnShape): boolean =>
  ['literal', 'now', 'new-id'].includes(shape.default?.kind ?? 'none')

/** What the store has beside the tables of the domain. */
const sideTables = [
  'embedding_changes',
  'forgotten_changes',
  'memory_changes',
  'schema_migrations',
  'sync_ack',
  'sync_base',
  'sync_conflicts',
  'sync_history',
  'sync_hydration',
  'sync_kept_log',
  'sync_kept_tx',
  'sync_log',
  'sync_lost',
  'sync_placeholder',
  'sync_state',
  'sync_stub',
  'sync_tx',
]
const viewNames = ['active_sessions', 'open_incidents_summary', 'workflow_execution_stats']
const tableNamesSorted = allTables.map(({ name }) => name).toSorted()

describe('the migration files', () => {
  test('V001 of SQLite is what the definitions compile to', () => {
    expect(sqliteSchema()).toBe(fileOf('sqlite', 'V001_initial_schema.sql'))
  })

  test('V001 of PostgreSQL is what the definitions compile to', () => {
    expect(postgresSchema()).toBe(fileOf('postgres', 'V001_initial_schema.sql'))
  })

  test.each(['sqlite', 'postgres'] as const)(
    'of %s are numbered from 1 without a gap, each with its rollback, which the runner leaves alone',
    (dialect) => {
      const files = readdirSync(folderOf(dialect)).toSorted()
      const forward = files.filter((file) => file.startsWith('V'))
      expect(files).toEqual(
        [...forward.map((file) => file.replace(/^V/, 'R')), ...forward].toSorted(),
      )
      expect(readMigrations(dialect).map(({ version }) => version)).toEqual(
        forward.map((_, i) => i + 1),
      )
      expect(forward).toHaveLength(SCHEMA_VERSION)
    },
  )
})

describe('a SQLite store with all migrations applied', () => {
  let db: AgentDB
  beforeAll(async () => {
    db = await openStore()
  })
  afterAll(() => db.close())

  const all = <T>(sql: string): T[] => connectionOf(db).all<T>(sql)
  const namesOf = (type: string): string[] =>
    all<{ name: string }>(
      `SELECT name FROM sqlite_master WHERE type = '${type}' AND name NOT LIKE 'sqlite_%' ORDER BY name`,
    ).map(({ name }) => name)
  const sqlOf = (name: string): string =>
    all<{ sql: string }>(`SELECT sql FROM sqlite_master WHERE name = '${name}'`)[0]?.sql ?? ''

  test('has the tables of the definitions and its own, and the views', () => {
    expect(namesOf('table')).toEqual([...tableNamesSorted, ...sideTables].toSorted())
    expect(namesOf('view')).toEqual(viewNames)
  })

  test.each(allTables.map((table) => [table.name, table] as const))(
    '%s has the columns of its definition: order, type, nullability, default, key',
    (name, table) => {
      const found = all<{
        name: string
        type: string
        notnull: number
        dflt_value: string | null
        pk: number
      }>(`PRAGMA table_xinfo('${name}')`)
      expect(
        found.map((column) => [
          column.name,
          column.type,
          column.notnull === 1,
          column.dflt_value !== null,
          column.pk,
        ]),
      ).toEqual(
        agentColumns(table).map((column) => {
          const shape = mustColumn(table, column)
          const type =
            shape.kind === 'vector'
              ? 'BLOB'
              : ['integer', 'boolean'].includes(shape.kind)
                ? 'INTEGER'
                : 'TEXT'
          return [column, type, !shape.nullable, hasDefault(shape), column === 'id' ? 1 : 0]
        }),
      )
      expect(sqlOf(name)).toMatch(/STRICT$/)
    },
  )

  test.each(allTables.map((table) => [table.name, table] as const))(
    '%s has the foreign keys, unique constraints and checks of its definition',
    (name, table) => {
      const keys = all<{ from: string; table: string; to: string; on_delete: string }>(
        `PRAGMA foreign_key_list('${name}')`,
      )
      expect(
        keys.map(({ from, table: to, on_delete }) => `${from} ${to} ${on_delete}`).toSorted(),
      ).toEqual(
        columnsOf(table)
          .flatMap(([column, { references }]) =>
            references === undefined
              ? []
              : [`${column} ${references.table} ${references.onDelete.toUpperCase()}`],
          )
          .toSorted(),
      )
      expect(keys.every(({ to }) => to === 'id')).toBe(true)

      const present = new Set(agentColumns(table))
      const uniques = all<{ name: string; origin: string }>(`PRAGMA index_list('${name}')`)
        .filter(({ origin }) => origin === 'u')
        .map((index) =>
          all<{ name: string }>(`PRAGMA index_info('${index.name}')`)
            .map((column) => column.name)
            .join(', '),
        )
      const wanted = table.uniques.filter(({ columns }) => columns.every((c) => present.has(c)))
      expect(uniques.toSorted()).toEqual(wanted.map(({ columns }) => columns.join(', ')).toSorted())
      for (const unique of wanted) expect(sqlOf(name)).toContain(`CONSTRAINT ${unique.name} UNIQUE`)
      for (const check of table.checks.filter(({ sqlite }) => sqlite !== null))
        expect(sqlOf(name)).toContain(`CONSTRAINT ${check.name} CHECK`)
    },
  )

  test('refuses, by a check, whatever is no value of the enum', () => {
    for (const table of allTables) {
      for (const [column, shape] of columnsOf(table)) {
        if (shape.kind !== 'enum') continue
        const list = (shape.values ?? []).map((value) => `'${value}'`).join(', ')
        expect(sqlOf(table.name)).toContain(
          `CONSTRAINT ${table.name}_${column}_type CHECK (${column} IN (${list}))`,
        )
      }
    }
  })

  test('has the indexes of the definitions, but for GIN and columns that it lacks', () => {
    const found = allTables.flatMap(({ name }) =>
      all<{ name: string; origin: string; unique: number; partial: number }>(
        `PRAGMA index_list('${name}')`,
      )
        .filter(({ origin }) => origin === 'c')
        .map((index) => ({
          name: index.name,
          unique: index.unique === 1,
          partial: index.partial === 1,
          on: /\((.*?)\)(?: WHERE .*)?$/.exec(sqlOf(index.name))?.[1],
        })),
    )
    const wanted = allTables.flatMap((table) =>
      table.indexes
        .filter(
          (index) =>
            index.using !== 'gin' && index.centreOnly !== true && !mentionsServerOnly(table, index),
        )
        .map((index) => ({
          name: index.name,
          unique: index.unique === true,
          partial: index.where !== undefined,
          on: index.on.join(', '),
        })),
    )
    expect(found.toSorted(byName)).toEqual(wanted.toSorted(byName))
    expect(found.length).toBeGreaterThanOrEqual(25)
  })

  test('has an index that starts with each foreign key', () => {
    const unindexed = allTables.flatMap(({ name }) => {
      const firsts = all<{ name: string }>(`PRAGMA index_list('${name}')`).map(
        (index) => all<{ name: string }>(`PRAGMA index_info('${index.name}')`)[0]?.name,
      )
      return all<{ from: string }>(`PRAGMA foreign_key_list('${name}')`).flatMap(({ from }) =>
        firsts.includes(from) ? [] : [`${name}.${from}`],
      )
    })
    expect(unindexed).toEqual([])
  })

  test('has the triggers of the definitions', () => {
    const found = namesOf('trigger')
    const wanted = allTables.flatMap((table) => {
      const agentsInsert = table.writeClass !== 'pull' && table.owner.kind !== 'self'
      return [
        ...(Object.hasOwn(table.columns, 'updated_at') ? [`update_${table.name}_updated_at`] : []),
        ...(table.writeClass === 'pull' ? [] : [`${table.name}_capture_insert`]),
        ...(table.writeClass === 'pull' || table.writeClass === 'push-only'
          ? []
          : ['base', 'update', 'delete'].map((what) => `${table.name}_capture_${what}`)),
        ...(isLoggedByReference(table)
          ? ['updated', 'deleted'].map((what) => `${table.name}_capture_image_of_${what}`)
          : []),
        ...(agentsInsert ? [] : [`${table.name}_guard_insert`]),
      ]
    })
    expect(found).toEqual(expect.arrayContaining(wanted))
    expect(found).toEqual(
      expect.arrayContaining([
        'update_conversation_stats_on_message',
        'update_conversation_stats_on_message_delete',
      ]),
    )
    const rest = found.filter(
      (name) =>
        !wanted.includes(name) &&
        !/_guard_|^(?:embeddings|memory_items)_change_|^update_conversation_|^sync_log_open$/.test(
          name,
        ),
    )
    expect(rest).toEqual([])
  })

  test('holds no column that belongs to the server alone', () => {
    const hidden = allTables.flatMap((table) =>
      columnsOf(table).flatMap(([column, { serverOnly }]) =>
        serverOnly ? [[table.name, column] as const] : [],
      ),
    )
    expect(hidden.map(([, column]) => column)).toEqual(
      expect.arrayContaining(['password_hash', 'mfa_secret', 'api_key_hash', 'token_hash']),
    )
    for (const [table, column] of hidden) {
      expect(all<{ name: string }>(`PRAGMA table_xinfo('${table}')`)).not.toContainEqual(
        expect.objectContaining({ name: column }),
      )
    }
  })
})

const byName = (a: { name: string }, b: { name: string }): number => (a.name < b.name ? -1 : 1)

const mentionsServerOnly = (table: TableDefinition, index: IndexDefinition): boolean =>
  columnsOf(table).some(
    ([column, { serverOnly }]) => serverOnly && index.on.some((part) => part.includes(column)),
  )

/** The type of a column in PostgreSQL's own catalogue. */
const udtNames: Readonly<Record<string, string>> = {
  boolean: 'bool',
  inet: 'inet',
  integer: 'int4',
  'integer[]': '_int4',
  json: 'jsonb',
  'text[]': '_text',
  timestamp: 'timestamptz',
  uuid: 'uuid',
  'uuid[]': '_uuid',
  vector: 'bytea',
}

function udtName(shape: ColumnShape): string | undefined {
  if (shape.kind === 'enum') return shape.enumName
  if (shape.kind === 'text') return shape.maxLength === undefined ? 'text' : 'varchar'
  return udtNames[shape.kind]
}

describe('a PostgreSQL database with all migrations applied', () => {
  let centre: CentralDatabase
  beforeAll(async () => {
    centre = await openMigratedCentre('postgres')
  })
  afterAll(() => centre[Symbol.asyncDispose]())

  const rows = async <T>(sql: string, ...values: unknown[]): Promise<T[]> =>
    (await centre.database.query<T>(sql, values)).rows

  test('has the tables and views of the definitions', async () => {
    const found = await rows<{ name: string; kind: string }>(
      `SELECT c.relname AS name, c.relkind AS kind FROM pg_class c
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v')
          AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
        ORDER BY 1`,
    )
    expect(found.filter(({ kind }) => kind === 'v').map(({ name }) => name)).toEqual(viewNames)
    expect(found.filter(({ kind }) => kind !== 'v').map(({ name }) => name)).toEqual(
      [...tableNamesSorted, 'audit_logs_default', 'schema_migrations'].toSorted(),
    )
    expect(found.filter(({ kind }) => kind === 'p')).toEqual([{ name: 'audit_logs', kind: 'p' }])
  })

  test('has the eight enums with their values in order', async () => {
    const found = await rows<{ name: string; values: string[] }>(
      `SELECT t.typname AS name, array_agg(e.enumlabel::text ORDER BY e.enumsortorder) AS values
        FROM pg_type t JOIN pg_enum e ON e.enumtypid = t.oid GROUP BY 1 ORDER BY 1`,
    )
    expect(found).toEqual(
      enums.map(({ name, values }) => ({ name, values: [...values] })).toSorted(byName),
    )
    expect(found).toHaveLength(8)
  })

  test.each(allTables.map((table) => [table.name, table] as const))(
    '%s has the columns of its definition: order, type, length, nullability, default',
    async (name, table) => {
      const found = await rows<Record<string, unknown>>(
        `SELECT column_name AS name, udt_name AS type, character_maximum_length AS length, is_nullable = 'YES' AS nullable,
            column_default IS NOT NULL AS defaulted
          FROM information_schema.columns WHERE table_schema = 'public' AND table_name = $1 ORDER BY ordinal_position`,
        name,
      )
      expect(found).toEqual(
        columnsOf(table).map(([column, shape]) => ({
          name: column,
          type: udtName(shape),
          length: shape.kind === 'text' ? (shape.maxLength ?? null) : null,
          nullable: shape.nullable,
          defaulted: hasDefault(shape),
        })),
      )
    },
  )

  test.each(allTables.map((table) => [table.name, table] as const))(
    '%s has the keys, unique constraints and checks of its definition',
    async (name, table) => {
      const found = await rows<{ kind: string; name: string; definition: string }>(
        `SELECT contype AS kind, conname AS name, pg_get_constraintdef(oid) AS definition FROM pg_constraint
          WHERE conrelid = ('public.' || $1)::regclass ORDER BY conname`,
        name,
      )
      const key = table.partitionedBy === undefined ? 'id' : `id, ${table.partitionedBy}`
      expect(found.filter(({ kind }) => kind === 'p')).toEqual([
        { kind: 'p', name: `${name}_pkey`, definition: `PRIMARY KEY (${key})` },
      ])
      expect(found.filter(({ kind }) => kind === 'f').map(({ definition }) => definition)).toEqual(
        columnsOf(table)
          .toSorted(([a], [b]) => (a < b ? -1 : 1))
          .flatMap(([column, { references }]) =>
            references === undefined
              ? []
              : [
                  `FOREIGN KEY (${column}) REFERENCES ${references.table}(id) ON DELETE ${references.onDelete.toUpperCase()}`,
                ],
          ),
      )
      expect(
        found
          .filter(({ kind }) => kind === 'u')
          .map((unique) => ({ name: unique.name, definition: unique.definition })),
      ).toEqual(
        table.uniques
          .map((unique) => ({
            name: unique.name,
            definition: `UNIQUE (${unique.columns.join(', ')})`,
          }))
          .toSorted(byName),
      )
      expect(found.filter(({ kind }) => kind === 'c').map((check) => check.name)).toEqual(
        table.checks.map((check) => check.name).toSorted(),
      )
    },
  )

  const indexes = (): Promise<
    {
      name: string
      table: string
      unique: boolean
      partial: boolean
      using: string
      on: string[]
    }[]
  > =>
    rows(
      `SELECT i.relname AS name, t.relname AS table, x.indisunique AS unique, x.indpred IS NOT NULL AS partial, am.amname AS using,
          array(SELECT pg_get_indexdef(x.indexrelid, n + 1, true) || CASE WHEN x.indoption[n] & 1 = 1 THEN ' DESC' ELSE '' END
            FROM generate_series(0, x.indnkeyatts - 1) n ORDER BY n) AS on
        FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid JOIN pg_am am ON am.oid = i.relam
        WHERE t.relnamespace = 'public'::regnamespace AND t.relname <> 'audit_logs_default'
          AND NOT EXISTS (SELECT 1 FROM pg_constraint c WHERE c.conindid = x.indexrelid)
        ORDER BY 1`,
    )

  test('has the indexes of the definitions, of all the kinds that are asked for', async () => {
    const plain = (text: string): string =>
      text
        .replaceAll(/[()]|::\w+/g, ' ')
        .replaceAll(/\s+/g, ' ')
        .trim()
    const found = (await indexes()).filter(({ table }) => table !== 'schema_migrations')
    expect(found.map((index) => ({ ...index, on: index.on.map(plain) }))).toEqual(
      allTables
        .flatMap((table) =>
          table.indexes.map((index) => ({
            name: index.name,
            table: table.name,
            unique: index.unique === true,
            partial: index.where !== undefined,
            using: index.using ?? 'btree',
            on: index.on.map(plain),
          })),
        )
        .toSorted(byName),
    )
    expect(found.length).toBeGreaterThanOrEqual(25)
    expect(found.some(({ using }) => using === 'gin')).toBe(true)
    expect(found.some(({ on }) => on.length > 1)).toBe(true)
    expect(found.some(({ on }) => on.some((part) => part.includes('lower')))).toBe(true)
  })

  test('has an index that starts with each foreign key', async () => {
    const unindexed = await rows(
      `SELECT c.conrelid::regclass::text AS table, a.attname AS column
        FROM pg_constraint c JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
        WHERE c.contype = 'f' AND c.connamespace = 'public'::regnamespace
          AND NOT EXISTS (SELECT 1 FROM pg_index x WHERE x.indrelid = c.conrelid AND x.indkey[0] = c.conkey[1])`,
    )
    expect(unindexed).toEqual([])
  })

  test('explains every table and every JSON column by a comment', async () => {
    const silent = await rows(
      `SELECT c.relname AS table, a.attname AS column FROM pg_class c
        LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.atttypid = 'jsonb'::regtype AND a.attnum > 0
        WHERE c.relnamespace = 'public'::regnamespace AND c.relname = ANY ($1)
          AND (obj_description(c.oid, 'pg_class') IS NULL OR (a.attnum IS NOT NULL AND col_description(c.oid, a.attnum) IS NULL))`,
      tableNamesSorted,
    )
    expect(silent).toEqual([])
  })

  test('has the triggers of the definitions; those of sync cannot be switched off by a session', async () => {
    const found = await rows<{ table: string; name: string; always: boolean; each: string }>(
      `SELECT c.relname AS table, t.tgname AS name, t.tgenabled = 'A' AS always,
          CASE WHEN t.tgtype & 1 = 1 THEN 'row' ELSE 'statement' END AS each
        FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE NOT t.tgisinternal ORDER BY 1, 2`,
    )
    const on = (table: string, each: string): string[] =>
      found.filter((t) => t.table === table && t.each === each).map(({ name }) => name)
    const audited = ['users', 'workflows', 'incidents', 'runbooks']
    for (const table of allTables) {
      const { name } = table
      expect(on(name, 'row')).toEqual([
        ...(name === 'conversations' ? ['move_conversation_embeddings'] : []),
        ...(Object.hasOwn(table.columns, 'updated_at') ? [`update_${name}_updated_at`] : []),
      ])
      expect(on(name, 'statement')).toEqual(
        [
          ...(audited.includes(name)
            ? ['insert', 'update', 'delete'].map((op) => `audit_${name}_${op}`)
            : []),
          ...(table.writeClass === 'push-only'
            ? []
            : [
                'sync_refuse_truncate',
                ...['insert', 'update', 'delete'].map((op) => `zz_sync_capture_${op}`),
              ]),
          ...(name === 'messages'
            ? [
                'update_conversation_stats_on_message',
                'update_conversation_stats_on_message_delete',
                'update_conversation_stats_on_message_update',
              ]
            : []),
        ].toSorted(),
      )
    }
    const ofSync = found.filter(({ name }) => /^(?:zz_)?sync_/.test(name))
    expect(ofSync.filter(({ always }) => !always)).toEqual([])
    expect(ofSync.length).toBeGreaterThan(0)
  })

  test('closes every table by row-level security', async () => {
    const open = await rows(
      `SELECT relname FROM pg_class WHERE relname = ANY ($1) AND relnamespace = 'public'::regnamespace AND NOT relrowsecurity`,
      tableNamesSorted,
    )
    expect(open).toEqual([])
  })
})

describe('the runner of SQLite', () => {
  async function withStoreFile(
    change: string,
    check: (path: string) => Promise<void>,
  ): Promise<void> {
    using folder = scratchFolder()
    const path = folder.file('agent.db')
    await (await AgentDB.open({ path })).close()
    const raw = new Database(path)
    raw.exec(change)
    raw.close()
    await check(path)
  }

  test('records version, name, checksum and duration of what it applied', async () => {
    await using db = await openStore()
    const [migration] = readMigrations('sqlite')
    expect(connectionOf(db).all('SELECT * FROM schema_migrations')).toEqual([
      {
        version: 1,
        name: 'initial_schema',
        applied_at: expect.stringMatching(/^\d{4}-\d{2}-\d{2}T[\d:]{8}\.\d{6}Z$/),
        checksum: migration?.checksum,
        execution_time_ms: expect.any(Number),
        success: 1,
      },
    ])
  })

  test('refuses a store whose migration had other contents', async () => {
    await withStoreFile(
      `UPDATE schema_migrations SET checksum = '${'0'.repeat(64)}'`,
      async (path) => {
        const error = await rejectionOf(AgentDB.open({ path }))
        expect(error).toMatchObject({ code: 'MIGRATION_CHANGED' })
        expect(error.message).toContain('V001')
      },
    )
  })

  test('refuses a store of a newer version and leaves it as it was', async () => {
    const newer = `INSERT INTO schema_migrations (version, name, checksum, execution_time_ms)
      VALUES (${SCHEMA_VERSION + 1}, 'later', '${'a'.repeat(64)}', 1)`
    await withStoreFile(newer, async (path) => {
      const error = await rejectionOf(AgentDB.open({ path }))
      expect(error).toMatchObject({ code: 'STORE_NEWER' })
      expect(error.message).toContain(String(SCHEMA_VERSION + 1))
      const raw = new Database(path, { readonly: true })
      expect(raw.prepare('SELECT count(*) AS n FROM schema_migrations').get()).toEqual({ n: 2 })
      raw.close()
    })
  })

  test('V001 then R001 leaves nothing behind, also of a store in use, and V001 applies again', async () => {
    using folder = scratchFolder()
    const path = folder.file('agent.db')
    const db = await AgentDB.open({ path })
    const c = db.conversations.create({ title: 'kept till now' })
    const first = db.messages.create({ conversation_id: c.id, role: 'user', content: 'a' })
    await db.search({ in: ['messages', 'incidents', 'runbooks', 'conversations'], text: 'a' })
    await db.search({ collection: 'code_embeddings', text: 'abc', match: 'substring' })
    await db.search({ collection: 'code_embeddings', text: 'abc' })
    db.messages.create({
      conversation_id: c.id,
      role: 'user',
      content: 'b',
      parent_message_id: first.id,
    })
    await db.close()

    const raw = new Database(path)
    raw.pragma('foreign_keys = ON')
    raw.transaction(() => raw.exec(fileOf('sqlite', 'R001_initial_schema.sql')))()
    expect(raw.prepare('SELECT type, name FROM sqlite_master').all()).toEqual([])
    raw.close()

    await using again = await AgentDB.open({ path })
    expect(again.conversations.list()).toEqual([])
    expect(again.conversations.create({ title: 'anew' }).title).toBe('anew')
  })
})

/** Everything of ours that a database can hold: relations, types, functions, schemas; not what extensions brought. */
async function objectsOf(database: Centre): Promise<string[]> {
  const { rows } = await database.query<{ object: string }>(
    `SELECT pg_describe_object(o.classid, o.oid, 0) AS object FROM (
        SELECT 'pg_class'::regclass AS classid, oid, relnamespace AS nsp FROM pg_class
        UNION ALL SELECT 'pg_type'::regclass, oid, typnamespace FROM pg_type
        UNION ALL SELECT 'pg_proc'::regclass, oid, pronamespace FROM pg_proc
        UNION ALL SELECT 'pg_namespace'::regclass, oid, oid FROM pg_namespace) o
      JOIN pg_namespace n ON n.oid = o.nsp
      WHERE n.nspname NOT LIKE 'pg_%' AND n.nspname <> 'information_schema'
        AND (o.classid <> 'pg_type'::regclass OR EXISTS (SELECT 1 FROM pg_type t WHERE t.oid = o.oid AND t.typtype = 'e'))
        AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = o.oid AND d.classid = o.classid AND d.deptype = 'e')
      ORDER BY 1`,
  )
  const grants = await database.query<{ acl: string | null }>(
    `SELECT nspacl::text AS acl FROM pg_namespace WHERE nspname = 'public'`,
  )
  return [...rows.map(({ object }) => object), ...grants.rows.map(({ acl }) => String(acl))]
}

describe('the runner of PostgreSQL', () => {
  test('of several servers that start at once, one applies a migration', async () => {
    await using centre = await openEmptyCentre('postgres')
    await Promise.all([1, 2, 3].map(() => migrateCentre(centre.database)))
    const [migration] = readMigrations('postgres')
    const { rows } = await centre.database.query('SELECT * FROM schema_migrations')
    expect(rows).toEqual([
      expect.objectContaining({
        version: 1,
        name: 'initial_schema',
        checksum: migration?.checksum,
        success: true,
      }),
    ])
  })

  test('refuses a database whose migration had other contents, or that is newer', async () => {
    await using centre = await openMigratedCentre('postgres')
    const { database } = centre
    await database.query(`UPDATE schema_migrations SET checksum = repeat('0', 64)`)
    expect(await rejectionOf(migrateCentre(database))).toMatchObject({ code: 'MIGRATION_CHANGED' })
    await database.query(
      `INSERT INTO schema_migrations (version, name, checksum, execution_time_ms) VALUES ($1, 'later', repeat('a', 64), 1)`,
      [SCHEMA_VERSION + 1],
    )
    expect(await rejectionOf(migrateCentre(database))).toMatchObject({ code: 'SCHEMA_UNKNOWN' })
  })

  test.each(['postgres', 'pglite'] as const)(
    'on %s, V001 then R001 leaves nothing behind, also of a database in use, and V001 applies again',
    async (kind) => {
      await using centre = await openEmptyCentre(kind)
      const { database } = centre
      await database.query('GRANT USAGE ON SCHEMA public TO CURRENT_USER')
      const before = await objectsOf(database)
      await migrateCentre(database)
      await database.query(
        `INSERT INTO users (email, username, password_hash) VALUES ('a@b.co', 'abc', 'x')`,
      )
      await database.query(`SELECT create_audit_logs_partition('2026-01-15')`)
      expect(await objectsOf(database)).not.toEqual(before)

      await database.transaction((session) =>
        session.query(fileOf('postgres', 'R001_initial_schema.sql')),
      )
      expect(await objectsOf(database)).toEqual(before)

      await migrateCentre(database)
      expect((await database.query('SELECT * FROM users')).rows).toEqual([])
    },
  )

  test('R001 refuses, whole, while archived audit partitions were not exported', async () => {
    await using centre = await openMigratedCentre('postgres')
    const { database } = centre
    await database.query(`SELECT create_audit_logs_partition('2020-01-15')`)
    await database.query(
      `INSERT INTO audit_logs (action, resource_type, created_at) VALUES ('login', 'old', '2020-01-20')`,
    )
    await database.query('SELECT drop_old_audit_logs_partitions(12)')
    const before = await objectsOf(database)

    await expect(
      database.transaction((session) =>
        session.query(fileOf('postgres', 'R001_initial_schema.sql')),
      ),
    ).rejects.toThrow(/audit_archive/)
    expect(await objectsOf(database)).toEqual(before)
    const { rows } = await database.query(
      'SELECT resource_type FROM audit_archive.audit_logs_2020_01',
    )
    expect(rows).toEqual([{ resource_type: 'old' }])
  })
})
