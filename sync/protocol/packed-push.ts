import { z } from 'zod'
import type { Stored } from '../../schema/codec.ts'
import { MESSAGE_BYTES_MAX, TRANSACTION_MUTATIONS_MAX } from '../../schema/limits.ts'
import { Allowance, fault } from './fault.ts'
import {
  mutationSchema,
  PUSH_TRANSACTIONS_MAX,
  pushFieldsSchema,
  type Base,
  type PushRequest,
  type PushTransaction,
} from './messages.ts'
import { blockSchema, packBlock, rowAt, unpackBlock } from './packed.ts'
import { mustId, mustTransactionId, mustWhole } from './scalars.ts'

/**
 * A push as it travels in msgpack. The transactions and the mutations of all of them stand in order, one lane a field; how
 * many mutations a transaction has marks the borders. The values of the mutations of one shape are a block: the n-th
 * mutation that names the shape has its n-th row.
 */
export const packedPushSchema = pushFieldsSchema.omit({ transactions: true }).extend({
  /** Lanes: seq, id, clock, nonce of the base, its position, number of mutations. */
  transactions: blockSchema,
  /** Lanes: shape, operation, id. */
  mutations: blockSchema,
  values: z.array(blockSchema).max(500),
})

type PackedPush = z.infer<typeof packedPushSchema>
type Mutation = PushTransaction['mutations'][number]

/** Most values of one push, and what repeated texts may unfold to. */
const CELLS_MAX = 8_000_000
const CHARACTERS_MAX = MESSAGE_BYTES_MAX

export function packPush({ transactions, ...rest }: PushRequest): unknown {
  const mutations = transactions.flatMap((transaction) => transaction.mutations)
  const ofShape: Stored[][][] = rest.shapes.map(() => [])
  for (const [shape, , , values] of mutations) {
    const own = ofShape[shape]
    if (own === undefined) throw new Error('bug in AgentDB: a mutation without a shape')
    own.push(values)
  }
  return {
    ...rest,
    transactions: packBlock(
      transactions.map(({ seq, id, clock, base, mutations: own }) => [
        seq,
        id,
        clock,
        base.nonce,
        base.position,
        own.length,
      ]),
      6,
    ),
    mutations: packBlock(
      mutations.map(([shape, op, id]) => [shape, op, id]),
      3,
    ),
    values: rest.shapes.map(({ columns }, i) => packBlock(ofShape[i] ?? [], columns.length)),
  }
}

export function unpackPush(packed: PackedPush): PushRequest {
  const allowance = new Allowance(CELLS_MAX, CHARACTERS_MAX)
  const { transactions, mutations, values, ...rest } = packed
  mustBeAtMost(transactions.rows, PUSH_TRANSACTIONS_MAX, 'transactions')
  if (transactions.rows === 0) fault('transactions', 'has none')
  mustBeAtMost(mutations.rows, TRANSACTION_MUTATIONS_MAX, 'mutations')
  if (values.length !== rest.shapes.length)
    fault('values', `has ${values.length} blocks for ${rest.shapes.length} shapes`)
  const all = unpackMutations(packed, allowance)
  return { ...rest, transactions: unpackTransactions(packed, all, allowance) }
}

function mustBeAtMost(rows: number, most: number, place: string): void {
  if (rows > most) fault(place, `has ${rows}, of at most ${most}`)
}

function unpackMutations(
  { shapes, mutations, values }: PackedPush,
  allowance: Allowance,
): Mutation[] {
  const [shapeOf = [], ops = [], ids = []] = unpackBlock(mutations, 3, 'mutations', allowance)
  const used = shapes.map(() => 0)
  const blocks = values.map((block, i) =>
    unpackBlock(block, shapes[i]?.columns.length ?? 0, `values.${i}`, allowance),
  )
  const out: Mutation[] = []
  for (let row = 0; row < mutations.rows; row++) {
    const shape = mustWhole(shapeOf[row], `mutations.data.0.${row}`)
    const block = blocks[shape]
    const n = used[shape]
    if (block === undefined || n === undefined)
      return fault(`mutations.data.0.${row}`, `there is no shape ${shape}`)
    used[shape] = n + 1
    if (n >= (values[shape]?.rows ?? 0)) fault(`values.${shape}`, 'has too few rows')
    out.push([
      shape,
      mustOperation(ops[row], `mutations.data.1.${row}`),
      mustId(ids[row], `mutations.data.2.${row}`),
      rowAt(block, n),
    ])
  }
  for (const [i, block] of values.entries())
    if (block.rows !== used[i]) fault(`values.${i}`, `has ${block.rows} rows, of ${used[i]} in all`)
  return out
}

const operations: readonly unknown[] = mutationSchema.def.items[1].options

function mustOperation(value: unknown, place: string): Mutation[1] {
  return operations.includes(value) ? (value as Mutation[1]) : fault(place, 'is no operation')
}

function unpackTransactions(
  { transactions }: PackedPush,
  mutations: readonly Mutation[],
  allowance: Allowance,
): PushTransaction[] {
  const place = 'transactions'
  const columns = unpackBlock(transactions, 6, place, allowance)
  const [seqs = [], ids = [], clocks = [], nonces = [], positions = [], counts = []] = columns
  const out: PushTransaction[] = []
  let from = 0
  let base: Base | undefined
  for (let row = 0; row < transactions.rows; row++) {
    const seq = mustWhole(seqs[row], `${place}.data.0.${row}`)
    if (seq === 0) fault(`${place}.data.0.${row}`, 'is no number of a transaction')
    const nonce = mustNonce(nonces[row], `${place}.data.3.${row}`)
    const position = mustWhole(positions[row], `${place}.data.4.${row}`)
    if (base?.nonce !== nonce || base.position !== position) base = { nonce, position }
    const to = from + mustWhole(counts[row], `${place}.data.5.${row}`)
    if (to > mutations.length)
      fault(`${place}.data.5.${row}`, 'counts more mutations than there are')
    out.push({
      seq,
      id: mustTransactionId(ids[row], `${place}.data.1.${row}`),
      clock: mustWhole(clocks[row], `${place}.data.2.${row}`),
      base,
      mutations: mutations.slice(from, to),
    })
    from = to
  }
  if (from !== mutations.length)
    fault('mutations', `has ${mutations.length}, of ${from} in all transactions`)
  return out
}

function mustNonce(value: unknown, place: string): string | null {
  if (value === null || (typeof value === 'string' && value.length <= 64)) return value
  return fault(place, 'is no nonce')
}
