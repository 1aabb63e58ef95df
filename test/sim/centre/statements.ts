import type { Stored, StoredRow } from '../../../schema/codec.ts'
import {
  agentColumns,
  mustColumn,
  references,
  type TableDefinition,
} from '../../../schema/define.ts'
import { profileKey, userKey } from '../../../schema/role-access.ts'
import { mustTable, referencesTo } from '../../../schema/tables.ts'
import { timestampOfMicros } from '../../../schema/values/timestamp.ts'
import { DatabaseError } from './database-error.ts'
import { imageOf } from './image.ts'
import { embeddingsAlong, givenAlong, isGivenAway, lockRowsBelow, metaLock } from './moves.ts'
import { rowKey, type ModelDatabase, type Transaction } from './model-database.ts'

const same = (a: Stored | undefined, b: Stored | undefined): boolean =>
  a instanceof Uint8Array && b instanceof Uint8Array
    ? Buffer.compare(a, b) === 0
    : (a ?? null) === (b ?? null)

interface Ref {
  readonly table: TableDefinition
  readonly id: string
}

const keyOf = ({ table, id }: Ref): string => rowKey(table.number, id)

/**
 * INSERT, UPDATE and DELETE with all that the centre's schema does around them: row locks, foreign keys with their
 * actions, unique keys, `updated_at`, statistics, and capture into `row_meta` and the log.
 */
export class Statements {
  readonly #database: ModelDatabase
  readonly #transaction: Transaction
  /** `agentdb.client` of the transaction; null for SQL at the centre. */
  readonly #writer: string | null

  constructor(database: ModelDatabase, transaction: Transaction, writer: string | null) {
    this.#database = database
    this.#transaction = transaction
    this.#writer = writer
  }

  read(table: TableDefinition, id: string): StoredRow | undefined {
    return this.#database.rows.read(rowKey(table.number, id), this.#transaction)
  }

  async lock(
    table: TableDefinition,
    id: string,
    strength: 'key share' | 'no key update' | 'update',
  ): Promise<void> {
    // A row that is not there cannot be locked.
    if (this.read(table, id) !== undefined)
      await this.#transaction.lock(rowKey(table.number, id), strength)
  }

  async insert(table: TableDefinition, rows: readonly StoredRow[]): Promise<void> {
    const full = rows.map((row) => this.#withDefaults(table, row))
    for (const row of full) {
      await this.#transaction.lock(`pk:${table.number}:${String(row['id'])}`, 'update')
      await this.#lockUniques(table, row)
      for (const { column, target } of references(table)) {
        const parent = row[column]
        if (typeof parent === 'string') await this.lock(mustTable(target), parent, 'key share')
      }
      if (table.name === 'messages')
        await this.lock(mustTable('conversations'), String(row['conversation_id']), 'no key update')
      if (table.owner.kind === 'parent') {
        const parent = metaLock(mustTable(table.owner.table), String(row[table.owner.column]))
        await this.#transaction.lock(parent, 'key share')
      }
    }
    for (const row of full) {
      const id = String(row['id'])
      if (this.read(table, id) !== undefined)
        throw new DatabaseError('23505', `${table.name} ${id} exists`, `${table.name}_pkey`)
      this.#mustBeUnique(table, row)
      this.#mustReferToRows(table, row, Object.keys(row), full)
      this.#write({ table, id }, row)
    }
    for (const row of full) this.#captureInsert(table, row)
    if (table.name === 'messages') this.#countMessages(full, 1)
  }

  /** Changes one row; returns how many there were. */
  async update(table: TableDefinition, id: string, values: StoredRow): Promise<number> {
    const changesKey = table.uniques.some(({ columns }) =>
      columns.some((column) => Object.hasOwn(values, column)),
    )
    await this.lock(table, id, changesKey ? 'update' : 'no key update')
    const before = this.read(table, id)
    if (before === undefined) return 0
    const after = { ...before, ...values }
    await this.#lockUniques(table, after)
    for (const { column, target } of references(table)) {
      const parent = values[column]
      if (typeof parent === 'string') await this.lock(mustTable(target), parent, 'key share')
    }
    this.#mustBeUnique(table, after)
    this.#mustReferToRows(table, after, Object.keys(values), [])
    if (isGivenAway(table, before, after)) return this.#giveAway(table, before, after)
    await this.#lockMeta({ table, id })
    this.#updateNow(table, before, after)
    return 1
  }

  /** A row that changes hands takes all below it along, and a conversation its embeddings. */
  async #giveAway(table: TableDefinition, before: StoredRow, after: StoredRow): Promise<number> {
    const embeddings = mustTable('embeddings')
    const along = (): StoredRow[] =>
      table.name === 'conversations'
        ? embeddingsAlong(this.#database, this.#transaction, before)
        : []
    const locked = along()
    for (const row of locked) await this.lock(embeddings, String(row['id']), 'no key update')
    const id = String(before['id'])
    const below = await lockRowsBelow(this.#database, this.#transaction, { table, id })
    // Looked at again: waiting for the locks took time. What came meanwhile was not locked, and stays.
    const ids = new Set(locked.map((row) => row['id']))
    for (const row of along())
      if (ids.has(row['id'] ?? null))
        this.#updateNow(
          embeddings,
          row,
          givenAlong(row, before['user_id'], String(after['user_id'])),
        )
    this.#updateNow(table, before, after)
    for (const ref of below) this.#captureMove(ref)
    return 1
  }

  /** Rows below another change their keys when that one changes hands, which locks their entries. */
  async #lockMeta({ table, id }: Ref): Promise<void> {
    if (table.owner.kind === 'parent')
      await this.#transaction.lock(metaLock(table, id), 'no key update')
  }

  /** Deletes rows with all that follows; returns how many of those named there were. */
  async remove(table: TableDefinition, ids: readonly string[]): Promise<number> {
    const named = ids.map((id) => ({ table, id }))
    const { deleted, cleared } = await this.#lockDescendants(named)
    const there = named.filter((ref) => this.read(ref.table, ref.id) !== undefined)
    const goneMessages: StoredRow[] = []
    const cleans = cleared.map(({ ref, column }) => ({ ref, column }))
    const gone = deleted.flatMap((ref) => {
      const row = this.read(ref.table, ref.id)
      return row === undefined ? [] : [{ ref, row }]
    })
    for (const { ref, row } of gone) {
      this.#write(ref, undefined)
      if (ref.table.name === 'messages') goneMessages.push(row)
    }
    for (const { ref, column } of cleans) {
      const row = this.read(ref.table, ref.id)
      // While this waited for its lock it may have been pointed elsewhere.
      const isHanging = gone.some((each) => each.ref.id === row?.[column])
      if (row !== undefined && isHanging)
        this.#updateNow(ref.table, row, { ...row, [column]: null })
    }
    for (const { ref, row } of gone) this.#captureDelete(ref, row)
    this.#countMessages(goneMessages, -1)
    return there.length
  }

  /** Locks rows to delete and all rows that foreign keys will delete or clear, until no more turn up. */
  async #lockDescendants(
    named: readonly Ref[],
  ): Promise<{ deleted: Ref[]; cleared: { ref: Ref; column: string }[] }> {
    for (;;) {
      const deleted = new Map<string, Ref>()
      const cleared: { ref: Ref; column: string }[] = []
      const open = [...named]
      for (let ref = open.shift(); ref !== undefined; ref = open.shift()) {
        if (deleted.has(keyOf(ref))) continue
        await this.lock(ref.table, ref.id, 'update')
        if (this.read(ref.table, ref.id) === undefined) continue
        deleted.set(keyOf(ref), ref)
        for (const { table, column, onDelete } of referencesTo.get(ref.table.name) ?? []) {
          for (const child of Array.from(this.#database.rowsOf(table.number, this.#transaction))) {
            if (child[column] !== ref.id) continue
            const childRef = { table, id: String(child['id']) }
            if (onDelete === 'cascade') open.push(childRef)
            else cleared.push({ ref: childRef, column })
          }
        }
      }
      const survivors = cleared.filter(({ ref }) => !deleted.has(keyOf(ref)))
      for (const { ref } of survivors) await this.lock(ref.table, ref.id, 'no key update')
      const conversations = this.#conversationsOf([...deleted.values()])
      for (const id of conversations)
        await this.lock(mustTable('conversations'), id, 'no key update')
      for (const ref of [...deleted.values(), ...survivors.map(({ ref: each }) => each)])
        await this.#lockMeta(ref)
      if (this.#isComplete(deleted, survivors))
        return { deleted: [...deleted.values()], cleared: survivors }
    }
  }

  #conversationsOf(refs: readonly Ref[]): string[] {
    const ids = refs.flatMap((ref) =>
      ref.table.name === 'messages'
        ? [String(this.read(ref.table, ref.id)?.['conversation_id'])]
        : [],
    )
    return [...new Set(ids)].toSorted()
  }

  /** Nothing new refers to what goes: waiting for the locks took time. */
  #isComplete(
    deleted: ReadonlyMap<string, Ref>,
    cleared: readonly { ref: Ref; column: string }[],
  ): boolean {
    const known = new Set([
      ...deleted.keys(),
      ...cleared.map(({ ref, column }) => `${keyOf(ref)} ${column}`),
    ])
    for (const ref of deleted.values()) {
      if (this.read(ref.table, ref.id) === undefined) return false
      for (const { table, column, onDelete } of referencesTo.get(ref.table.name) ?? []) {
        for (const child of this.#database.rowsOf(table.number, this.#transaction)) {
          if (child[column] !== ref.id) continue
          const key = rowKey(table.number, String(child['id']))
          if (!known.has(key) && !(onDelete === 'set null' && known.has(`${key} ${column}`)))
            return false
        }
      }
    }
    return true
  }

  #withDefaults(table: TableDefinition, row: StoredRow): StoredRow {
    const now = timestampOfMicros(this.#transaction.startedAt)
    return Object.fromEntries(
      agentColumns(table).map((name): [string, Stored] => {
        if (Object.hasOwn(row, name)) return [name, row[name] ?? null]
        const fallback = mustColumn(table, name).default
        if (fallback?.kind === 'now') return [name, now]
        if (fallback?.kind !== 'literal') return [name, null]
        return [name, typeof fallback.value === 'boolean' ? Number(fallback.value) : fallback.value]
      }),
    )
  }

  #uniqueKeys(
    table: TableDefinition,
    row: StoredRow,
  ): { name: string; columns: readonly string[]; text: string }[] {
    return table.uniques
      .filter(({ columns }) =>
        columns.every((column) => row[column] !== null && row[column] !== undefined),
      )
      .map(({ name, columns }) => ({
        name,
        columns,
        text: `uk:${table.number}:${name}:${JSON.stringify(columns.map((column) => row[column]))}`,
      }))
  }

  async #lockUniques(table: TableDefinition, row: StoredRow): Promise<void> {
    const before = this.read(table, String(row['id']))
    for (const { text, columns } of this.#uniqueKeys(table, row)) {
      if (before !== undefined && columns.every((column) => same(before[column], row[column])))
        continue
      await this.#transaction.lock(text, 'update')
    }
  }

  #mustBeUnique(table: TableDefinition, row: StoredRow): void {
    for (const { name, columns } of this.#uniqueKeys(table, row)) {
      for (const other of this.#database.rowsOf(table.number, this.#transaction)) {
        if (
          other['id'] !== row['id'] &&
          columns.every((column) => same(other[column], row[column]))
        )
          throw new DatabaseError('23505', `duplicate key value violates ${name}`, name)
      }
    }
  }

  #mustReferToRows(
    table: TableDefinition,
    row: StoredRow,
    changed: readonly string[],
    siblings: readonly StoredRow[],
  ): void {
    for (const { column, target } of references(table)) {
      const parent = row[column]
      if (typeof parent !== 'string' || !changed.includes(column)) continue
      const isSibling = target === table.name && siblings.some(({ id }) => id === parent)
      if (!isSibling && this.read(mustTable(target), parent) === undefined)
        throw new DatabaseError(
          '23503',
          `${table.name}.${column}: there is no ${target} ${parent}`,
          `${table.name}_${column}_fkey`,
        )
    }
  }

  #write(ref: Ref, row: StoredRow | undefined): void {
    this.#transaction.write(this.#database.rows, keyOf(ref), row)
  }

  /** The part of an UPDATE after all locks are held. */
  #updateNow(table: TableDefinition, before: StoredRow, after: StoredRow): void {
    const id = String(before['id'])
    const row = Object.hasOwn(table.columns, 'updated_at')
      ? { ...after, updated_at: timestampOfMicros(this.#transaction.startedAt) }
      : after
    this.#write({ table, id }, row)
    this.#captureUpdate(table, before, row)
  }

  #countMessages(messages: readonly StoredRow[], sign: 1 | -1): void {
    const conversations = mustTable('conversations')
    for (const id of new Set(messages.map((message) => String(message['conversation_id'])))) {
      const before = this.read(conversations, id)
      if (before === undefined) continue
      const own = messages.filter((message) => message['conversation_id'] === id)
      const tokens = own.reduce((sum, message) => sum + Number(message['tokens_used'] ?? 0), 0)
      const latest = [before['last_message_at'], ...own.map((message) => message['created_at'])]
        .filter((at) => typeof at === 'string')
        .toSorted()
        .at(-1)
      this.#updateNow(conversations, before, {
        ...before,
        message_count: Number(before['message_count'] ?? 0) + sign * own.length,
        total_tokens: Number(before['total_tokens'] ?? 0) + sign * tokens,
        ...(sign === 1 ? { last_message_at: latest ?? null } : {}),
      })
    }
  }

  #scopeKeys(table: TableDefinition, row: StoredRow): readonly string[] {
    const { owner } = table
    switch (owner.kind) {
      case 'self':
        return [userKey(String(row['id'])), profileKey]
      case 'column':
        return [userKey(String(row[owner.column]))]
      case 'shared': {
        const user = row[owner.column]
        return typeof user === 'string' ? [owner.key, userKey(user)] : [owner.key]
      }
      case 'parent': {
        const parent = mustTable(owner.table)
        const key = rowKey(parent.number, String(row[owner.column]))
        const keys = this.#database.meta.read(key, this.#transaction)?.keys
        if (keys === undefined) throw new DatabaseError('23503', `no scope keys for ${key}`)
        return keys
      }
    }
  }

  #captureInsert(table: TableDefinition, row: StoredRow): void {
    if (table.writeClass === 'push-only') return
    const id = String(row['id'])
    const keys = this.#scopeKeys(table, row)
    this.#transaction.write(this.#database.meta, rowKey(table.number, id), {
      keys,
      keysBefore: [],
      deleted: false,
      made: [String(this.#transaction.xid), this.#database.clock(), this.#writer],
      cols: {},
    })
    this.#log(table, id)
  }

  #captureUpdate(table: TableDefinition, before: StoredRow, after: StoredRow): void {
    if (table.writeClass === 'push-only') return
    const id = String(before['id'])
    const key = rowKey(table.number, id)
    const known = this.#database.meta.read(key, this.#transaction)
    const stamp = [String(this.#transaction.xid), this.#database.clock(), this.#writer] as const
    const changed = agentColumns(table).filter(
      (name) =>
        name !== 'id' && !mustColumn(table, name).derived && !same(before[name], after[name]),
    )
    const { owner } = table
    const isBelow =
      known !== undefined && owner.kind === 'parent' && !changed.includes(owner.column)
    this.#transaction.write(this.#database.meta, key, {
      // A parent may have changed hands since: the entry has the new keys.
      keys: isBelow ? known.keys : this.#scopeKeys(table, after),
      keysBefore: known?.keys ?? this.#scopeKeys(table, before),
      deleted: false,
      made: known?.made ?? stamp,
      cols: { ...known?.cols, ...Object.fromEntries(changed.map((name) => [name, stamp])) },
    })
    this.#log(table, id)
  }

  /** The row itself does not change; those who held it lose it, and others get it. */
  #captureMove({ table, id }: Ref): void {
    const row = this.read(table, id)
    const key = rowKey(table.number, id)
    const meta = this.#database.meta.read(key, this.#transaction)
    const { owner } = table
    if (row === undefined || meta === undefined || owner.kind !== 'parent') return
    const parent = rowKey(mustTable(owner.table).number, String(row[owner.column]))
    const keys = this.#database.meta.read(parent, this.#transaction)?.keys ?? []
    this.#transaction.write(this.#database.meta, key, { ...meta, keys, keysBefore: meta.keys })
    this.#log(table, id)
  }

  #captureDelete({ table, id }: Ref, row: StoredRow): void {
    if (table.writeClass === 'push-only') return
    const key = rowKey(table.number, id)
    // A cascade has removed the parent: the keys are the row's own.
    const keys =
      this.#database.meta.read(key, this.#transaction)?.keys ?? this.#scopeKeys(table, row)
    this.#transaction.write(this.#database.meta, key, {
      keys,
      keysBefore: keys,
      deleted: true,
      made: [String(this.#transaction.xid), this.#database.clock(), this.#writer],
      cols: {},
    })
    this.#log(table, id)
  }

  /** The sequence is drawn late, and the image is the row as it then is. */
  #log(table: TableDefinition, id: string): void {
    const row = this.read(table, id)
    const meta = this.#database.meta.read(rowKey(table.number, id), this.#transaction)
    this.#transaction.log.push({
      seq: this.#database.drawSeq(),
      xid: this.#transaction.xid,
      tbl: table.number,
      id,
      image: row === undefined ? null : imageOf(table, row),
      isRow: true,
      keysBefore: meta?.keysBefore ?? [],
      keysAfter: row === undefined ? [] : (meta?.keys ?? []),
    })
  }
}
