import { agentColumnsAt } from '../../schema/columns-at.ts'
import { agentColumns, mustColumn, type TableDefinition } from '../../schema/define.ts'
import { clientKey, userKey } from '../../schema/role-access.ts'
import { tableOfName, tableOfNumber } from '../../schema/tables.ts'
import { SCHEMA_VERSION } from '../../schema/version.ts'
import type {
  PullResponse,
  Shape,
  WireConflict,
  WireOutcome,
} from '../../sync/protocol/messages.ts'
import { LogKind } from '../../sync/protocol/version.ts'
import { parseImage, storedFromImage } from '../postgres/values.ts'
import type { LogEntry } from './log-entry.ts'

type Image = Readonly<Record<string, unknown>>

/** Collects what one client gets of a span: the latest entry per row, seen with its scope's eyes. */
export class PullBuilder {
  readonly #userId: string
  readonly #clientId: string
  readonly #keys: ReadonlySet<string>
  readonly #lost: ReadonlySet<string>
  readonly #schema: number
  readonly #rows = new Map<string, { table: TableDefinition; id: string; entry: LogEntry }>()
  readonly #outcomes: WireOutcome[] = []
  readonly #conflicts: WireConflict[] = []
  #watermark: PullResponse['watermark'] = null

  /**
   * `lost` are keys that the client held where it stands and no longer holds: what it has under them leaves. `schema` is
   * the version whose tables and columns it gets; without, ours.
   */
  constructor(scope: {
    userId: string
    clientId: string
    keys: readonly string[]
    lost?: readonly string[]
    schema?: number
  }) {
    this.#userId = scope.userId
    this.#clientId = scope.clientId
    this.#keys = new Set(scope.keys)
    this.#lost = new Set(scope.lost)
    this.#schema = scope.schema ?? SCHEMA_VERSION
  }

  /** Whether there is anything to tell. */
  get isEmpty(): boolean {
    return (
      this.#rows.size === 0 &&
      this.#outcomes.length === 0 &&
      this.#conflicts.length === 0 &&
      this.#watermark === null
    )
  }

  /** Rows so far, those that go included. */
  get rows(): number {
    return this.#rows.size
  }

  /** Takes an entry of the log, in order; those outside the scope are passed over. */
  add(entry: LogEntry): void {
    const { keysBefore, keysAfter } = entry
    if (!keysBefore.some(this.#concerns) && !keysAfter.some(this.#concerns)) return
    const table = tableOfNumber(entry.tbl)
    if (table !== undefined) {
      if (table.since > this.#schema) return
      this.#rows.set(`${entry.tbl}:${entry.id}`, { table, id: entry.id, entry })
    } else if (entry.image !== null) {
      this.#addSide(entry.tbl, JSON.parse(entry.image) as unknown)
    }
  }

  addWatermark(watermark: NonNullable<PullResponse['watermark']>): void {
    this.#watermark = watermark
  }

  addOutcome(outcome: WireOutcome): void {
    this.#outcomes.push(outcome)
  }

  addConflict(conflict: WireConflict): void {
    this.#conflicts.push(conflict)
  }

  readonly #holds = (key: string): boolean => this.#keys.has(key)

  readonly #concerns = (key: string): boolean => this.#keys.has(key) || this.#lost.has(key)

  #addSide(kind: number, image: unknown): void {
    if (kind === LogKind.watermark)
      this.#watermark = image as NonNullable<PullResponse['watermark']>
    if (kind === LogKind.outcome) this.#outcomes.push(image as WireOutcome)
    if (kind === LogKind.conflict) this.#conflicts.push(image as WireConflict)
  }

  build(): Pick<PullResponse, 'shapes' | 'rows' | 'gone' | 'watermark' | 'outcomes' | 'conflicts'> {
    const shapes = new ShapeList(this.#schema)
    const rows: PullResponse['rows'] = []
    const gone: [number, string][] = []
    for (const { table, id, entry } of this.#rows.values()) {
      if (entry.image === null || !entry.keysAfter.some(this.#holds)) {
        gone.push([table.number, id])
        continue
      }
      const { image, lossy } = parseImage(entry.image)
      const seen = table.owner.kind === 'self' ? this.#userImage(table, id, image) : image
      const { values, placeholders } = storedFromImage(table, seen, lossy, this.#schema)
      const shape = shapes.of(table)
      rows.push(placeholders === undefined ? [shape, values] : [shape, values, placeholders])
    }
    return {
      shapes: shapes.list,
      rows,
      gone,
      watermark: this.#watermark,
      outcomes: this.#outcomes.map((outcome) => outcomeAt(outcome, this.#schema)),
      conflicts: this.#conflicts.flatMap((conflict) => conflictAt(conflict, this.#schema)),
    }
  }

  #userImage(table: TableDefinition, id: string, image: Image): Image {
    return this.#keys.has(userKey(id)) && id === this.#userId
      ? image
      : publicProfile(table, id, image)
  }

  /** The key under which what concerns this client alone is logged. */
  get clientKey(): string {
    return clientKey(this.#clientId)
  }
}

/** What others see of a user; required columns that are not theirs to see hold placeholders. */
export function publicProfile(table: TableDefinition, id: string, image: Image): Image {
  const seen: Record<string, unknown> = { email: `${id}@hidden.invalid` }
  for (const name of agentColumns(table)) {
    if (mustColumn(table, name).profile && Object.hasOwn(image, name)) seen[name] = image[name]
  }
  return seen
}

type Values = Readonly<Record<string, unknown>>

/** What an agent of a schema version knows of some values of a table. */
function valuesAt(name: string | undefined, values: Values, version: number): Values {
  const table = name === undefined ? undefined : tableOfName(name)
  if (table === undefined) return values
  const held = agentColumnsAt(table, version)
  return Object.fromEntries(Object.entries(values).filter(([column]) => held.includes(column)))
}

function outcomeAt(outcome: WireOutcome, version: number): WireOutcome {
  if (version >= SCHEMA_VERSION) return outcome
  const { table, changed, server_row: row } = outcome
  return {
    ...outcome,
    ...(changed === undefined ? {} : { changed: valuesAt(table, changed, version) }),
    ...(row == null ? {} : { server_row: valuesAt(table, row, version) }),
  }
}

/** None where it is only about what the agent does not know. It is told when it has been upgraded. */
function conflictAt(conflict: WireConflict, version: number): WireConflict[] {
  if (version >= SCHEMA_VERSION) return [conflict]
  const lost = valuesAt(conflict.table, conflict.lost, version)
  const kept = valuesAt(conflict.table, conflict.kept, version)
  const isKnown = Object.keys(lost).length + Object.keys(kept).length > 0
  return isKnown ? [{ ...conflict, lost, kept }] : []
}

class ShapeList {
  readonly list: Shape[] = []
  readonly #indexes = new Map<number, number>()
  readonly #schema: number

  constructor(schema: number) {
    this.#schema = schema
  }

  of(table: TableDefinition): number {
    const known = this.#indexes.get(table.number)
    if (known !== undefined) return known
    const index = this.list.length
    this.#indexes.set(table.number, index)
    this.list.push({ table: table.number, columns: [...agentColumnsAt(table, this.#schema)] })
    return index
  }
}
