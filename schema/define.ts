/**
 * The vocabulary in which every table is defined once. A definition is plain data: from it come the DDL of both
 * dialects, the row types, the validators, the merge rules, the access rules and the wire layout.
 */

/** JSON as it survives SQLite, Postgres and the wire. */
export type Json =
  | string
  | number
  | boolean
  | null
  | readonly Json[]
  | { readonly [key: string]: Json }

export type ColumnKind =
  | 'uuid'
  | 'text'
  | 'enum'
  | 'integer'
  | 'boolean'
  | 'timestamp'
  | 'json'
  | 'text[]'
  | 'integer[]'
  | 'uuid[]'
  | 'inet'
  | 'vector'

export type OnDelete = 'cascade' | 'set null'

export interface Reference {
  readonly table: string
  readonly onDelete: OnDelete
}

/** A default that each dialect writes in its own words; a literal is the same in both. */
export type ColumnDefault =
  | { readonly kind: 'literal'; readonly value: string | number | boolean }
  | { readonly kind: 'now' }
  | { readonly kind: 'new-id' }
  | { readonly kind: 'next-in'; readonly column: string }
  | { readonly kind: 'acting-user' }

/**
 * What becomes of a column that two agents changed without knowing of each other (`sync/merge`):
 *
 * - `lww`: the later hybrid logical clock wins
 * - `counter`: both differences are added (integers)
 * - `set`: what either added is in, what either removed is out (arrays whose order means nothing)
 * - `merge`: JSON objects, key by key, `lww` where both changed the same one
 * - `max`: the greater (integers and times that only grow)
 * - `reject`: the later to arrive is rejected as a whole
 */
export type ValuePolicy = 'lww' | 'counter' | 'set' | 'merge' | 'max' | 'reject'

/** Who may set a column: see {@link Column.write}. */
export type ColumnWrite = 'always' | 'insert' | 'never'

interface ColumnShape {
  readonly kind: ColumnKind
  /** Longest value in characters (text only); undefined is unlimited. */
  readonly maxLength: number | undefined
  /** Name and values of the enum type (enum only). */
  readonly enumName: string | undefined
  readonly values: readonly string[] | undefined
  /** Schema versions of those values that came after version 1 (enum only). */
  readonly valuesSince: Readonly<Record<string, number>> | undefined
  /** Schema version that the column came with. */
  readonly since: number
  readonly nullable: boolean
  readonly default: ColumnDefault | undefined
  readonly references: Reference | undefined
  /** Never reaches an agent: no column of SQLite, no field of the wire. */
  readonly serverOnly: boolean
  /** Kept by triggers on both sides (`updated_at`, statistics): never sent, never in conflict. */
  readonly derived: boolean
  /** What an agent may do with it: set at any time, only when it makes the row, or not at all. */
  readonly write: ColumnWrite | undefined
  /** How it merges, where it is in no group. */
  readonly policy: ValuePolicy
  /** Part of the public profile that other users see of this row. */
  readonly profile: boolean
  readonly comment: string | undefined
}

/** One column. The type parameters carry what TypeScript needs to know; they cost nothing at run time. */
export class Column<
  T = unknown,
  Nullable extends boolean = boolean,
  Defaulted extends boolean = boolean,
  Server extends boolean = boolean,
  Derived extends boolean = boolean,
> {
  declare readonly $type: T
  declare readonly $nullable: Nullable
  declare readonly $defaulted: Defaulted
  declare readonly $server: Server
  declare readonly $derived: Derived
  readonly shape: ColumnShape

  constructor(shape: ColumnShape) {
    this.shape = shape
  }

  notNull(): Column<T, false, Defaulted, Server, Derived> {
    return new Column({ ...this.shape, nullable: false })
  }

  default(value: string | number | boolean): Column<T, Nullable, true, Server, Derived> {
    return new Column({ ...this.shape, default: { kind: 'literal', value } })
  }

  defaultNow(): Column<T, Nullable, true, Server, Derived> {
    return new Column({ ...this.shape, default: { kind: 'now' } })
  }

  /** One more than the largest value among the rows that share `within`; set by the repository. */
  defaultNextIn(
    within: string,
  ): Column<T, Nullable, true, Server, Derived> & { readonly $nextIn: true } {
    const shape: ColumnShape = { ...this.shape, default: { kind: 'next-in', column: within } }
    return new Column(shape) as Column<T, Nullable, true, Server, Derived> & {
      readonly $nextIn: true
    }
  }

  defaultNewId(): Column<T, Nullable, true, Server, Derived> {
    return new Column({ ...this.shape, default: { kind: 'new-id' } })
  }

  /** The user of the store, where the program does not name one; set by the repository. */
  actingUser(): this & { readonly $actingUser: true } {
    return new Column({ ...this.shape, default: { kind: 'acting-user' } }) as this & {
      readonly $actingUser: true
    }
  }

  references(table: string, onDelete: OnDelete): this {
    return new Column({ ...this.shape, references: { table, onDelete } }) as this
  }

  serverOnly(): Column<T, Nullable, Defaulted, true, Derived> {
    return new Column({ ...this.shape, serverOnly: true })
  }

  derived(): Column<T, Nullable, Defaulted, Server, true> {
    return new Column({ ...this.shape, derived: true })
  }

  /** An agent sets it when it makes the row and never again. */
  fixed(): this {
    return new Column({ ...this.shape, write: 'insert' }) as this
  }

  /** An agent may change it at any time, even in an append table. */
  writable(): this {
    return new Column({ ...this.shape, write: 'always' }) as this
  }

  /** How concurrent changes of it merge; without, `lww`. */
  merges(policy: ValuePolicy): this {
    if (!policyKinds[policy].includes(this.shape.kind))
      throw new Error(`a column of ${this.shape.kind} cannot merge as ${policy}`)
    return new Column({ ...this.shape, policy }) as this
  }

  /** The schema version that it came with; without, 1. It must be nullable or have a literal default. */
  since(version: number): this {
    return new Column({ ...this.shape, since: version }) as this
  }

  profile(): this {
    return new Column({ ...this.shape, profile: true }) as this
  }

  comment(comment: string): this {
    return new Column({ ...this.shape, comment }) as this
  }
}

const allKinds: readonly ColumnKind[] = [
  'uuid',
  'text',
  'enum',
  'integer',
  'boolean',
  'timestamp',
  'json',
  'text[]',
  'integer[]',
  'uuid[]',
  'inet',
  'vector',
]

const policyKinds: Readonly<Record<ValuePolicy, readonly ColumnKind[]>> = {
  lww: allKinds,
  reject: allKinds,
  counter: ['integer'],
  set: ['text[]', 'integer[]', 'uuid[]'],
  merge: ['json'],
  max: ['integer', 'timestamp'],
}

type Fresh<T> = Column<T, true, false, false, false>

function column<T>(
  kind: ColumnKind,
  more: {
    maxLength?: number
    enumName?: string
    values?: readonly string[]
    valuesSince?: Readonly<Record<string, number>>
  } = {},
): Fresh<T> {
  return new Column({
    kind,
    maxLength: more.maxLength,
    enumName: more.enumName,
    values: more.values,
    valuesSince: more.valuesSince,
    since: 1,
    nullable: true,
    default: undefined,
    references: undefined,
    serverOnly: false,
    derived: false,
    write: undefined,
    policy: 'lww',
    profile: false,
    comment: undefined,
  })
}

export const uuid = (): Fresh<string> => column('uuid')
export const text = (): Fresh<string> => column('text')
export const varchar = (maxLength: number): Fresh<string> => column('text', { maxLength })
export const integer = (): Fresh<number> => column('integer')
export const boolean = (): Fresh<boolean> => column('boolean')
/** UTC, microseconds, as ISO-8601 text: `2026-11-20T09:30:00.123456Z`. */
export const timestamp = (): Fresh<string> => column('timestamp')
export const json = <T = Json>(): Fresh<T> => column('json')
export const textArray = (): Fresh<readonly (string | null)[]> => column('text[]')
export const integerArray = (): Fresh<readonly (number | null)[]> => column('integer[]')
export const uuidArray = (): Fresh<readonly (string | null)[]> => column('uuid[]')
export const inet = (): Fresh<string> => column('inet')
/** Little-endian 32-bit floats. */
export const vector = (): Fresh<Float32Array> => column('vector')

export interface EnumDefinition<V extends string = string> {
  readonly name: string
  readonly values: readonly V[]
  /** Schema versions of those values that came after version 1. */
  readonly since: Readonly<Record<string, number>>
}

export function defineEnum<const V extends string>(
  name: string,
  values: readonly V[],
  since: Readonly<Record<string, number>> = {},
): EnumDefinition<V> {
  return { name, values, since }
}

export const enumOf = <V extends string>(definition: EnumDefinition<V>): Fresh<V> =>
  column('enum', {
    enumName: definition.name,
    values: definition.values,
    valuesSince: definition.since,
  })

/** The same rule in both dialects; `sqlite: null` where SQLite cannot say it (the validators do). */
export interface CheckDefinition {
  readonly name: string
  readonly postgres: string
  readonly sqlite: string | null
}

export interface IndexDefinition {
  readonly name: string
  /** Columns or expressions, as SQL, each with `DESC` where wanted. */
  readonly on: readonly string[]
  readonly where?: string
  readonly unique?: boolean
  /** GIN has no counterpart in SQLite and is left out there. */
  readonly using?: 'gin'
  /** Agents have no use for it, and would pay for it with every insert. */
  readonly centreOnly?: boolean
}

export interface UniqueDefinition {
  readonly name: string
  readonly columns: readonly string[]
  /** What the centre does when an agent's row clashes: refuse it, or count this column up. */
  readonly onClash:
    | { readonly kind: 'reject' }
    | { readonly kind: 'next-version'; readonly column: string }
}

/** How agents write a table (DESIGN 5). `push-only` is append that never comes back. */
export type WriteClass = 'pull' | 'append' | 'row' | 'push-only'

/**
 * Whom a row belongs to, hence which scope keys it carries (`SYNC-DESIGN.md` 5).
 * - `self`: the row is a user; its user holds it whole, all others hold its public profile
 * - `column`: the user in this column
 * - `parent`: as the row that this column references
 * - `shared`: every user whose role may read it, and the user in `column` if any
 */
export type Ownership =
  | { readonly kind: 'self' }
  | { readonly kind: 'column'; readonly column: string }
  | { readonly kind: 'parent'; readonly column: string; readonly table: string }
  | {
      readonly kind: 'shared'
      readonly key: SharedKey
      readonly column: string
      /** Whether a writer must be the user in `column` (executions) or need not be (incidents). */
      readonly ownWritesOnly: boolean
    }

/** Scope keys of rows that roles share; `role-access.ts` says which role holds which. */
export type SharedKey = 'incidents' | 'runbooks'

/** Columns that merge as one (a status with its times). */
export interface ColumnGroup {
  readonly name: string
  readonly columns: readonly string[]
  /** Without, `lww`. */
  readonly policy?: 'lww' | 'reject' | StateMachine
}

/** A group whose one column moves along legal transitions only, whoever moves it. */
export interface StateMachine {
  readonly kind: 'state_machine'
  readonly column: string
  readonly transitions: Transitions
}

/** Per state the states that may follow it. */
export type Transitions<S extends string = string> = Readonly<Record<S, readonly S[]>>

export type Columns = Readonly<Record<string, Column>>

export interface TableDefinition<Name extends string = string, C extends Columns = Columns> {
  readonly name: Name
  /** Stable number of the table in the sync log. Never reused, never changed. */
  readonly number: number
  /** Schema version that the table came with. */
  readonly since: number
  readonly comment: string
  readonly writeClass: WriteClass
  readonly owner: Ownership
  readonly columns: C
  readonly checks: readonly CheckDefinition[]
  readonly indexes: readonly IndexDefinition[]
  readonly uniques: readonly UniqueDefinition[]
  readonly groups: readonly ColumnGroup[]
  /**
   * What becomes of a delete when rows that would go along were changed meanwhile by someone else: it is rejected, or
   * each such row leaves a conflict record.
   */
  readonly staleDelete: 'reject' | 'record'
  /** A row with this column set is gone for every list. */
  readonly softDelete: 'deleted_at' | undefined
  /** Partitioned by month of this column at the centre, which then is part of the key. */
  readonly partitionedBy: string | undefined
}

type TableOptions<C extends Columns> = Omit<TableDefinition<string, C>, 'name' | Optional> &
  Partial<Pick<TableDefinition, Optional>>

type Optional =
  | 'since'
  | 'checks'
  | 'indexes'
  | 'uniques'
  | 'groups'
  | 'staleDelete'
  | 'softDelete'
  | 'partitionedBy'

/**
 * Defines a table.
 *
 * @example
 * const notes = defineTable('notes', {
 *   number: 99, comment: 'Notes', writeClass: 'row', owner: { kind: 'column', column: 'user_id' },
 *   columns: { id: uuid().notNull().defaultNewId(), user_id: uuid().notNull(), body: text() },
 * })
 */
export function defineTable<const Name extends string, C extends Columns>(
  name: Name,
  options: TableOptions<C>,
): TableDefinition<Name, C> {
  const table: TableDefinition<Name, C> = {
    since: 1,
    checks: [],
    indexes: [],
    uniques: [],
    groups: [],
    staleDelete: 'reject',
    softDelete: undefined,
    partitionedBy: undefined,
    ...options,
    name,
  }
  for (const [key, { shape }] of Object.entries(table.columns)) {
    mustBeAddable(table, key, shape)
    mustHealOnce(table, key, shape)
  }
  return table
}

/**
 * After the centre lost it, an append row comes back as it is now, and then its changes once more: what counted would count
 * twice.
 */
function mustHealOnce(
  { name, writeClass }: { readonly name: string; readonly writeClass: WriteClass },
  key: string,
  { policy }: ColumnShape,
): void {
  if (policy === 'counter' && (writeClass === 'append' || writeClass === 'push-only'))
    throw new Error(
      `${name}.${key} is a counter: the table must be of class row, not ${writeClass}`,
    )
}

/** Both sides must know by themselves what rows have in a column that came after them. */
function mustBeAddable(
  { name, since }: { readonly name: string; readonly since: number },
  key: string,
  shape: ColumnShape,
): void {
  if (shape.since <= since) return
  const isKnown = shape.default === undefined ? shape.nullable : shape.default.kind === 'literal'
  if (!isKnown)
    throw new Error(`${name}.${key} came later: it must be nullable or have a literal default`)
}

/** Names of the columns that exist on agents, in order of definition. */
export const agentColumns: (table: TableDefinition) => string[] = perTable((table) =>
  Object.keys(table.columns).filter((name) => !mustColumn(table, name).serverOnly),
)

/** Works something out once a table: every row that is read or written asks. */
function perTable<R>(work: (table: TableDefinition) => R): (table: TableDefinition) => R {
  const known = new WeakMap<TableDefinition, R>()
  return (table) => {
    let found = known.get(table)
    if (found === undefined) known.set(table, (found = work(table)))
    return found
  }
}

/** Shape of a column; throws on a name that the table does not have. */
export function mustColumn(table: TableDefinition, name: string): ColumnShape {
  const found = Object.hasOwn(table.columns, name) ? table.columns[name] : undefined
  if (found === undefined) throw new Error(`table ${table.name} has no column ${name}`)
  return found.shape
}

/** What an agent may do with a column, with the default of its table's class. */
export function columnWrite(table: TableDefinition, name: string): ColumnWrite {
  const shape = mustColumn(table, name)
  if (shape.serverOnly || shape.derived || table.writeClass === 'pull') return 'never'
  if (shape.write !== undefined) return shape.write
  if (name === 'id') return 'insert'
  return table.writeClass === 'row' ? 'always' : 'insert'
}

/** Columns whose group is touched by `names`, so that a patch carries whole groups. */
export function wholeGroups(table: TableDefinition, names: Iterable<string>): Set<string> {
  const whole = new Set(names)
  for (const group of table.groups) {
    if (group.columns.some((name) => whole.has(name))) {
      for (const name of group.columns) whole.add(name)
    }
  }
  return whole
}

/** Foreign keys of a table that exist on agents. */
export const references: (
  table: TableDefinition,
) => { column: string; target: string; onDelete: OnDelete; nullable: boolean }[] = perTable(
  (table) =>
    Object.entries(table.columns).flatMap(([name, { shape }]) =>
      shape.references === undefined
        ? []
        : [
            {
              column: name,
              target: shape.references.table,
              onDelete: shape.references.onDelete,
              nullable: shape.nullable,
            },
          ],
    ),
)

export type { ColumnShape }
