import { afterAll, beforeAll } from 'vitest'
import type { Stored } from '../../schema/codec.ts'
import type { TableName } from '../../schema/tables.ts'
import { newId } from '../../schema/values/id.ts'
import type { ServeOptions } from '../../server/index.ts'
import {
  createUser,
  startCentreOn,
  type Centre,
  type DatabaseKind,
  type TestUser,
} from './centre.ts'
import { insert, wireClient, type WireClient, type WireMutation } from './wire-client.ts'

/** What the tests of pushes share: a centre for the whole block, and an admin, who may write every table. */
export interface PushTests {
  readonly centre: Centre
  readonly user: TestUser
  /** A new hand-made client of that user. */
  client(): Promise<WireClient>
  /** Rows as the centre has them, ordered by id. */
  rows(table: TableName, ids: readonly string[]): Promise<Record<string, unknown>[]>
  row(table: TableName, id: string): Promise<Record<string, unknown> | undefined>
}

/** Starts a centre before the tests of the enclosing block and stops it after them. */
export function setUpPush(
  kind: DatabaseKind,
  options: Pick<ServeOptions, 'onError'> = {},
): PushTests {
  let started: { readonly centre: Centre; readonly user: TestUser } | undefined
  const must = (): { readonly centre: Centre; readonly user: TestUser } => {
    if (started === undefined) throw new Error('the centre is there once a test runs')
    return started
  }
  beforeAll(async () => {
    const centre = await startCentreOn(kind, options)
    started = { centre, user: await createUser(centre, { role: 'admin' }) }
  })
  afterAll(() => started?.centre[Symbol.asyncDispose]())
  const rows: PushTests['rows'] = (table, ids) =>
    must().centre.db.selectFrom(table).selectAll().where('id', 'in', ids).orderBy('id').execute()
  return {
    get centre() {
      return must().centre
    },
    get user() {
      return must().user
    },
    client: () => wireClient(must().centre, must().user),
    rows,
    row: async (table, id) => (await rows(table, [id]))[0],
  }
}

export const conversation = (user: TestUser, id = newId(), title = 't'): WireMutation =>
  insert('conversations', { id, user_id: user.id, title })

export const message = (
  conversationId: string,
  id = newId(),
  values: Record<string, Stored> = {},
): WireMutation =>
  insert('messages', {
    id,
    conversation_id: conversationId,
    role: 'user',
    content: 'm',
    sequence_number: 1,
    ...values,
  })

export const incident = (id = newId(), values: Record<string, Stored> = {}): WireMutation =>
  insert('incidents', { id, title: 't', severity: 'low', source: 's', ...values })

export const workflow = (user: TestUser, name: string, id = newId()): WireMutation =>
  insert('workflows', { id, user_id: user.id, name, version: 1, definition: '{}' })

export const runbook = (name: string, id = newId()): WireMutation =>
  insert('runbooks', { id, name, version: 1, steps: '[]' })
