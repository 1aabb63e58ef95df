import { randomBytes } from 'node:crypto'
import type { Stored } from '../../schema/codec.ts'
import { agentColumns, type TableDefinition } from '../../schema/define.ts'
import { allTables, mustTable, tableOfNumber, type TableName } from '../../schema/tables.ts'
import { newId } from '../../schema/values/id.ts'
import { SCHEMA_VERSION } from '../../schema/version.ts'
import { decodeMessage, encodeMessage, MSGPACK } from '../../sync/protocol/codec.ts'
import {
  errorResponseSchema,
  pullResponseSchema,
  pushRequestSchema,
  pushResponseSchema,
  type Base,
  type PullResponse,
  type PushRequest,
  type PushResponse,
  type WireOutcome,
} from '../../sync/protocol/messages.ts'
import type { Centre } from './centre.ts'

/** One mutation as a test writes it: values by column, in stored form. */
export interface WireMutation {
  readonly op: 'insert' | 'update' | 'delete'
  readonly table: TableName
  readonly id: string
  readonly values?: Readonly<Record<string, Stored>>
}

export interface WireTransaction {
  readonly seq: number
  readonly id: string
  readonly clock?: number | undefined
  readonly base?: Base | undefined
  readonly mutations: readonly WireMutation[]
}

export const insert = (table: TableName, values: Record<string, Stored>): WireMutation => ({
  op: 'insert',
  table,
  id: String(values['id']),
  values,
})

export const update = (
  table: TableName,
  id: string,
  values: Record<string, Stored>,
): WireMutation => ({ op: 'update', table, id, values })

export const remove = (table: TableName, id: string): WireMutation => ({ op: 'delete', table, id })

export const newTransactionId = (): string => randomBytes(16).toString('hex')

/** Microseconds since 1970. */
export const nowMicros = (): number => Date.now() * 1000

/** A push as it goes over the wire; it has passed the wire's own schema. */
export function pushRequest(
  clientId: string,
  transactions: readonly WireTransaction[],
  previous: PushRequest['previous'] = null,
): PushRequest {
  const shapes: { table: number; columns: string[] }[] = []
  const wire = transactions.map((transaction) => ({
    seq: transaction.seq,
    id: transaction.id,
    clock: transaction.clock ?? nowMicros(),
    base: transaction.base ?? { nonce: null, position: 0 },
    mutations: transaction.mutations.map(({ op, table, id, values = {} }) => {
      shapes.push({ table: mustTable(table).number, columns: Object.keys(values) })
      return [shapes.length - 1, op, id, Object.values(values)] as const
    }),
  }))
  const used = shapes.length <= 500 ? { shapes, wire } : shareShapes(shapes, wire)
  return pushRequestSchema.parse({
    clientId,
    schema: SCHEMA_VERSION,
    previous,
    shapes: used.shapes,
    transactions: used.wire,
  })
}

type Wire = { mutations: readonly (readonly [number, string, string, readonly Stored[]])[] }[]

/** The wire takes 500 shapes; equal ones are named once. */
function shareShapes(
  shapes: readonly { table: number; columns: string[] }[],
  wire: Wire,
): { shapes: { table: number; columns: string[] }[]; wire: Wire } {
  const shared = new Map<string, number>()
  const out: { table: number; columns: string[] }[] = []
  const indexes = shapes.map((shape) => {
    const key = JSON.stringify(shape)
    const known = shared.get(key)
    if (known !== undefined) return known
    shared.set(key, out.length)
    return out.push(shape) - 1
  })
  return {
    shapes: out,
    wire: wire.map((transaction) => ({
      ...transaction,
      mutations: transaction.mutations.map(
        ([shape, op, id, values]) => [indexes[shape] ?? -1, op, id, values] as const,
      ),
    })),
  }
}

/** A row that a pull brought, by column. */
export type PulledRow = Readonly<Record<string, Stored>>

export interface ErrorAnswer {
  readonly status: number
  readonly code: string
  readonly message: string
}

/**
 * An agent as an attacker would write one: it speaks the wire by hand, with no store and no checks of its own, and
 * keeps only its sequence numbers.
 */
export class WireClient {
  readonly clientId: string
  readonly token: string
  readonly #url: string
  #last: { seq: number; id: string } | null = null

  constructor(url: string, token: string, clientId: string = newId()) {
    this.#url = url
    this.token = token
    this.clientId = clientId
  }

  /** The last transaction it pushed. */
  get last(): { seq: number; id: string } | null {
    return this.#last
  }

  /** Pushes each list of mutations as one transaction; must be accepted as a whole. Returns their numbers. */
  async push(
    transactions: readonly (readonly WireMutation[])[],
    more: { clock?: number; base?: Base } = {},
  ): Promise<number[]> {
    const first = (this.#last?.seq ?? 0) + 1
    const wire = transactions.map((mutations, i) => ({
      seq: first + i,
      id: newTransactionId(),
      mutations,
      ...more,
    }))
    const request = pushRequest(this.clientId, wire, this.#last)
    await this.mustSend(request)
    const last = wire.at(-1)
    if (last !== undefined) this.#last = { seq: last.seq, id: last.id }
    return wire.map(({ seq }) => seq)
  }

  /** Sends a push and demands that it is taken. */
  async mustSend(request: PushRequest): Promise<PushResponse> {
    const response = await this.send(request)
    if (!response.ok) throw new Error(`push refused: ${response.status} ${await response.text()}`)
    return decodeMessage(pushResponseSchema, new Uint8Array(await response.arrayBuffer()), MSGPACK)
  }

  /** Sends a push and demands that it is refused as a whole. */
  async mustFail(request: PushRequest): Promise<ErrorAnswer> {
    return errorAnswer(await this.send(request))
  }

  send(request: PushRequest): Promise<Response> {
    return fetch(new URL('/sync/v1/push', this.#url), {
      method: 'POST',
      headers: { authorization: `Bearer ${this.token}`, 'content-type': MSGPACK },
      body: Buffer.from(encodeMessage(pushRequestSchema, request, MSGPACK)),
    })
  }

  async pull(cursor?: string): Promise<PullResponse> {
    const response = await this.pullRaw(cursor === undefined ? {} : { cursor })
    if (!response.ok) throw new Error(`pull refused: ${response.status} ${await response.text()}`)
    return decodeMessage(pullResponseSchema, new Uint8Array(await response.arrayBuffer()), MSGPACK)
  }

  pullRaw(
    query: Readonly<Record<string, string>> = {},
    headers: Readonly<Record<string, string>> = {},
  ): Promise<Response> {
    const url = new URL('/sync/v1/pull', this.#url)
    const all = { client: this.clientId, schema: String(SCHEMA_VERSION), ...query }
    for (const [name, value] of Object.entries(all)) url.searchParams.set(name, value)
    return fetch(url, { headers: { authorization: `Bearer ${this.token}`, ...headers } })
  }

  /** Every outcome but `applied` that the centre has for this client. */
  async outcomes(): Promise<WireOutcome[]> {
    return (await this.pull()).outcomes
  }

  /** Pushes one transaction and says what became of its first mutation; undefined is `applied`. */
  async outcomeOf(...mutations: WireMutation[]): Promise<WireOutcome | undefined> {
    const [seq] = await this.push([mutations])
    const outcomes = await this.outcomes()
    return outcomes.find((outcome) => outcome.seq === seq && outcome.n === 0)
  }
}

/** A hand-made client of a user. */
export async function wireClient(
  centre: Centre,
  user: { readonly id: string },
  agentId = `wire-${randomBytes(4).toString('hex')}`,
): Promise<WireClient> {
  return new WireClient(centre.url, await centre.server.issueToken({ userId: user.id, agentId }))
}

export async function errorAnswer(response: Response): Promise<ErrorAnswer> {
  const text = await response.text()
  if (response.ok) throw new Error(`expected a refusal, got ${response.status}`)
  return { status: response.status, ...errorResponseSchema.parse(JSON.parse(text)) }
}

/** Rows of a pull by table name. */
export function rowsByTable(pull: PullResponse): Map<string, PulledRow[]> {
  const out = new Map<string, PulledRow[]>(allTables.map(({ name }) => [name, []]))
  for (const [index, values] of pull.rows) {
    const shape = pull.shapes[index]
    const table: TableDefinition | undefined =
      shape === undefined ? undefined : tableOfNumber(shape.table)
    if (shape === undefined || table === undefined) throw new Error('a row without a shape')
    if (shape.columns.join(',') !== agentColumns(table).join(','))
      throw new Error(`the pull names other columns of ${table.name} than an agent has`)
    const row = Object.fromEntries(shape.columns.map((name, i) => [name, values[i] ?? null]))
    out.get(table.name)?.push(row)
  }
  return out
}
