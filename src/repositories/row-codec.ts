import { decodeValue, type Stored } from '../../schema/codec.ts'
import { agentColumns, mustColumn, type TableDefinition } from '../../schema/define.ts'

/** Turns a raw row (columns in order of definition) into an object. One a table, made once: the hot path of reads. */
export type RowDecoder<R> = (raw: readonly Stored[]) => R

export function rowDecoder<R>(table: TableDefinition): RowDecoder<R> {
  const names = agentColumns(table)
  const shapes = names.map((name) => mustColumn(table, name))
  const decoded = shapes.map(({ kind }) => needsDecoding.has(kind))
  // Copied, it makes a row of its final shape at once.
  const empty: Readonly<Record<string, unknown>> = Object.fromEntries(
    names.map((name) => [name, null]),
  )
  return (raw) => {
    const row: Record<string, unknown> = { ...empty }
    for (let i = 0; i < names.length; i++) {
      const stored = raw[i] ?? null
      const shape = shapes[i]
      row[names[i] as string] =
        decoded[i] === true && shape !== undefined ? decodeValue(shape, stored) : stored
    }
    return row as R
  }
}

/** Kinds whose stored form is not their value. */
export const needsDecoding: ReadonlySet<string> = new Set([
  'boolean',
  'json',
  'text[]',
  'integer[]',
  'uuid[]',
  'vector',
])
