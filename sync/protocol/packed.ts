import { z } from 'zod'
import type { Stored } from '../../schema/codec.ts'
import { fault, type Allowance } from './fault.ts'
import { packLane, type Lane } from './lanes.ts'
import { unpackLane } from './unpack-lane.ts'
import { whole } from './scalars.ts'

/**
 * Columns of so many rows. Of the lanes only that they are some is said here; `unpackLane` checks each in one pass.
 */
export const blockSchema = z.object({
  rows: whole,
  data: z.array(z.unknown()).max(200),
})
export type Block = z.infer<typeof blockSchema>

export interface PackedBlock {
  readonly rows: number
  readonly data: readonly Lane[]
}

/** Rows of equal width, turned into columns. */
export function packBlock(rows: readonly (readonly Stored[])[], width: number): PackedBlock {
  const data: Lane[] = []
  for (let column = 0; column < width; column++)
    data.push(packLane(rows.map((row) => row[column] ?? null)))
  return { rows: rows.length, data }
}

/** The columns of a block, each with as many values as it has rows. */
export function unpackBlock(
  { rows, data }: Block,
  width: number,
  place: string,
  allowance: Allowance,
): (readonly Stored[])[] {
  if (data.length !== width) fault(`${place}.data`, `has ${data.length} lanes, not ${width}`)
  return data.map((lane, i) => unpackLane(lane, rows, `${place}.data.${i}`, allowance))
}

/** One row of columns. */
export const rowAt = (columns: readonly (readonly Stored[])[], row: number): Stored[] => {
  const values: Stored[] = []
  for (const column of columns) values.push(column[row] ?? null)
  return values
}
