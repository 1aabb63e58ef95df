import { z } from 'zod'
import type { Stored } from '../../schema/codec.ts'
import { Allowance, fault } from './fault.ts'
import { pullResponseSchema, shapeSchema, type PullResponse } from './messages.ts'
import { blockSchema, packBlock, rowAt, unpackBlock } from './packed.ts'
import { mustId, whole } from './scalars.ts'

/** A pull response as it travels in msgpack: a shape with its rows as columns; what is gone as two lanes. */
export const packedPullSchema = pullResponseSchema
  .omit({ shapes: true, rows: true, gone: true })
  .extend({
    tables: z
      .array(
        blockSchema.extend({
          ...shapeSchema.shape,
          /** [row, the indexes of its values that only stand for one that no agent can hold] */
          placeholders: z.array(z.tuple([whole, z.array(whole).max(200)])).optional(),
        }),
      )
      .max(1000),
    /** Lanes: table, id. */
    gone: blockSchema,
  })

type PackedPull = z.infer<typeof packedPullSchema>
type Row = PullResponse['rows'][number]

export function packPull({ shapes, rows, gone, ...rest }: PullResponse): unknown {
  const ofShape: Row[][] = shapes.map(() => [])
  for (const row of rows) {
    const own = ofShape[row[0]]
    if (own === undefined) throw new Error('bug in AgentDB: a row without a shape')
    own.push(row)
  }
  return {
    ...rest,
    tables: shapes.map((shape, i) => packTable(shape, ofShape[i] ?? [])),
    gone: packBlock(gone, 2),
  }
}

function packTable(shape: PullResponse['shapes'][number], rows: readonly Row[]): unknown {
  const placeholders = rows.flatMap(([, , indexes], row) =>
    indexes === undefined ? [] : [[row, indexes]],
  )
  return {
    ...shape,
    ...packBlock(
      rows.map(([, values]) => values),
      shape.columns.length,
    ),
    ...(placeholders.length === 0 ? {} : { placeholders }),
  }
}

/** Every row brings its id, of 16 bytes: no centre says more than so much in a byte. */
const CELLS_PER_BYTE = 32
const CHARACTERS_PER_BYTE = 1024
const SMALL = 4096

export function unpackPull(packed: PackedPull, bytes: number): PullResponse {
  const size = bytes + SMALL
  const allowance = new Allowance(CELLS_PER_BYTE * size, CHARACTERS_PER_BYTE * size)
  const { tables, gone, ...rest } = packed
  const rows: PullResponse['rows'] = []
  for (const [i, table] of tables.entries()) unpackTable(table, i, rows, allowance)
  const [numbers = [], ids = []] = unpackBlock(gone, 2, 'gone', allowance)
  return {
    ...rest,
    shapes: tables.map(({ table, columns }) => ({ table, columns })),
    rows,
    gone: numbers.map((number, row): [number, string] => [
      mustTable(number, `gone.data.0.${row}`),
      mustId(ids[row], `gone.data.1.${row}`),
    ]),
  }
}

function unpackTable(
  table: PackedPull['tables'][number],
  shape: number,
  to: Row[],
  allowance: Allowance,
): void {
  const place = `tables.${shape}`
  const { columns, placeholders = [] } = table
  if (new Set(columns).size !== columns.length) fault(`${place}.columns`, 'names one twice')
  if (table.rows > 0 && columns[0] !== 'id') fault(`${place}.columns.0`, 'is not id')
  const data = unpackBlock(table, columns.length, place, allowance)
  const first = to.length
  for (let row = 0; row < table.rows; row++) {
    mustId(data[0]?.[row], `${place}.data.0.${row}`)
    to.push([shape, rowAt(data, row)])
  }
  for (const [n, [row, indexes]] of placeholders.entries()) {
    const marked = row < table.rows ? to[first + row] : undefined
    if (marked === undefined || marked[2] !== undefined)
      return fault(`${place}.placeholders.${n}.0`, 'is no row, or one that came before')
    const beyond = indexes.findIndex((index) => index >= columns.length)
    if (beyond >= 0) fault(`${place}.placeholders.${n}.1.${beyond}`, 'is no column')
    marked[2] = indexes
  }
}

function mustTable(value: Stored, place: string): number {
  return typeof value === 'number' && Number.isInteger(value)
    ? value
    : fault(place, 'is no number of a table')
}
