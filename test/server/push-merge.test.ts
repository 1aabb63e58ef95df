import { sql } from 'kysely'
import { describe, expect, test } from 'vitest'
import { newId } from '../../schema/values/id.ts'
import { databaseKinds } from '../support/centre.ts'
import { conversation, incident, message, runbook, setUpPush, workflow } from '../support/push.ts'
import {
  insert,
  nowMicros,
  remove,
  rowsByTable,
  update,
  type WireMutation,
} from '../support/wire-client.ts'

describe.each(databaseKinds)('push on %s', (kind) => {
  const push = setUpPush(kind)

  describe('to a row that was deleted', () => {
    test('is rejected as such, whatever it wants, and the row stays away', async () => {
      const [one, two] = [await push.client(), await push.client()]
      const chat = newId()
      await one.push([[conversation(push.user, chat)], [message(chat)]])
      await one.push([[remove('conversations', chat)]])
      await two.push([
        [update('conversations', chat, { title: 'x' })],
        [message(chat)],
        [conversation(push.user, chat)],
        [remove('conversations', chat)],
      ])
      expect(await two.outcomes()).toMatchObject([
        { seq: 1, kind: 'rejected', reason: 'deleted' },
        { seq: 2, kind: 'rejected', reason: 'deleted', sqlstate: '23503' },
        { seq: 3, kind: 'rejected', reason: 'deleted' },
      ])
      expect(await push.row('conversations', chat)).toBeUndefined()
      const left = await push.centre.db
        .selectFrom('messages')
        .select('id')
        .where('conversation_id', '=', chat)
        .execute()
      expect(left).toEqual([])
    })

    test('in the same push is rejected as well', async () => {
      const one = await push.client()
      const chat = newId()
      await one.push([[conversation(push.user, chat)]])
      await one.push([
        [remove('conversations', chat)],
        [message(chat)],
        [update('conversations', chat, { title: 'x' })],
      ])
      expect((await one.outcomes()).map(({ seq, reason }) => [seq, reason])).toEqual([
        [3, 'deleted'],
        [4, 'deleted'],
      ])
    })

    test.each([
      ['in one transaction', (...all: WireMutation[]) => [all]],
      ['in two', (...all: WireMutation[]) => all.map((one) => [one])],
    ])('and made in the same push, %s, is rejected in that and in later ones', async (_, split) => {
      const [one, two] = [await push.client(), await push.client()]
      const chat = newId()
      const cursors = [(await one.pull()).cursor, (await two.pull()).cursor]
      const [made = 0] = await one.push([
        ...split(conversation(push.user, chat), remove('conversations', chat)),
        [message(chat)],
        [conversation(push.user, chat)],
      ])
      for (const writer of [one, two]) {
        await writer.push([
          [message(chat)],
          [conversation(push.user, chat)],
          [update('conversations', chat, { title: 'x' })],
          [remove('conversations', chat)],
        ])
      }
      const deleted = (n: number): string[] => Array.from({ length: n }, () => 'deleted')
      const own = await one.outcomes()
      expect(own.map(({ reason }) => reason)).toEqual(deleted(5))
      expect(own[0]?.seq).toBe(made + split(remove('messages', chat), message(chat)).length)
      expect((await two.outcomes()).map(({ reason }) => reason)).toEqual(deleted(3))
      for (const [i, reader] of [one, two].entries()) {
        const pull = await reader.pull(cursors[i])
        expect(pull.gone.map(([, id]) => id)).toEqual([chat])
        expect(rowsByTable(pull).get('conversations')).toEqual([])
      }
    })

    test('together with a child that was made in the same push leaves a word of the child, too', async () => {
      const one = await push.client()
      const [chat, text] = [newId(), newId()]
      await one.push([
        [conversation(push.user, chat)],
        [message(chat, text)],
        [remove('conversations', chat)],
      ])
      await one.push([[update('messages', text, { feedback_rating: 1 })]])
      expect(await one.outcomes()).toMatchObject([{ seq: 4, reason: 'deleted', id: text }])
    })

    test('counts nothing in the statistics of its parent', async () => {
      const one = await push.client()
      const [chat, text] = [newId(), newId()]
      await one.push([
        [conversation(push.user, chat)],
        [message(chat, text), message(chat)],
        [remove('messages', text)],
      ])
      expect(await one.outcomes()).toEqual([])
      expect(await push.row('conversations', chat)).toMatchObject({ message_count: 1 })
    })
  })

  describe('that clashes on a unique key', () => {
    test('of a workflow gets the next version and keeps its id, so that its children stay right', async () => {
      const [one, two] = [await push.client(), await push.client()]
      const [a, b, run] = [newId(), newId(), newId()]
      await one.push([[workflow(push.user, 'Deploy', a)]])
      await two.push([
        [workflow(push.user, 'Deploy', b)],
        [insert('workflow_executions', { id: run, workflow_id: b, user_id: push.user.id })],
      ])
      expect(await two.outcomes()).toMatchObject([
        { seq: 1, kind: 'merged', reason: 'next_version', id: b, changed: { version: 2 } },
      ])
      expect(await push.row('workflows', b)).toMatchObject({ name: 'Deploy', version: 2 })
      expect(await push.row('workflow_executions', run)).toMatchObject({ workflow_id: b })
    })

    test('of a workflow that several agents make at once gives each its own version', async () => {
      const clients = await Promise.all([1, 2, 3, 4].map(() => push.client()))
      const name = `Race ${newId()}`
      const ids = clients.map(() => [newId(), newId(), newId()])
      await Promise.all(
        clients.map((one, i) =>
          one.push((ids[i] ?? []).map((id) => [workflow(push.user, name, id)])),
        ),
      )
      const made = await push.rows('workflows', ids.flat())
      expect(made.map(({ version }) => Number(version)).toSorted((a, b) => a - b)).toEqual(
        Array.from({ length: 12 }, (_, i) => i + 1),
      )
      for (const one of clients) {
        for (const outcome of await one.outcomes())
          expect(outcome).toMatchObject({ kind: 'merged', reason: 'next_version' })
      }
    })

    test('of a workflow by renaming it gets the next version, too', async () => {
      const one = await push.client()
      const [a, b] = [newId(), newId()]
      const [x, y] = [`X ${newId()}`, `Y ${newId()}`]
      await one.push([[workflow(push.user, x, a)], [workflow(push.user, y, b)]])
      const outcome = await one.outcomeOf(update('workflows', b, { name: x }))
      expect(outcome).toMatchObject({
        kind: 'merged',
        reason: 'next_version',
        changed: { version: 2 },
      })
      expect(await push.row('workflows', b)).toMatchObject({ name: x, version: 2 })
    })

    test('of a runbook is rejected with the name of the constraint, before or in the same push', async () => {
      const one = await push.client()
      const name = `Runbook ${newId()}`
      const [first, second, third] = [newId(), newId(), newId()]
      await one.push([
        [runbook(name, first)],
        [runbook(name, second)],
        [runbook(`${name} 2`, third)],
      ])
      await one.push([[runbook(name)]])
      const expected = {
        kind: 'rejected',
        reason: 'unique',
        sqlstate: '23505',
        constraint: 'runbooks_name_key',
      }
      expect(await one.outcomes()).toMatchObject([
        { seq: 2, id: second, ...expected },
        { seq: 4, ...expected },
      ])
      expect((await push.rows('runbooks', [first, second, third])).map(({ id }) => id)).toEqual([
        first,
        third,
      ])
    })

    test('only while it is carried out passes: names that are exchanged or used again', async () => {
      const one = await push.client()
      const [x, y] = [`X ${newId()}`, `Y ${newId()}`]
      const [a, b, c] = [newId(), newId(), newId()]
      await one.push([[runbook(x, a)], [runbook(y, b)]])
      await one.push([
        [
          update('runbooks', a, { name: `${x} aside` }),
          update('runbooks', b, { name: x }),
          update('runbooks', a, { name: y }),
        ],
        [remove('runbooks', b), runbook(x, c)],
      ])
      expect(await one.outcomes()).toEqual([])
      const names = (await push.rows('runbooks', [a, b, c])).map(
        ({ id, name }) => [id, name] as const,
      )
      expect(new Map(names)).toEqual(
        new Map([
          [a, y],
          [c, x],
        ]),
      )
    })

    test('which a deleted row of the same push had gets it, with the version that it had', async () => {
      const one = await push.client()
      const names = Array.from({ length: 4 }, () => `Again ${newId()}`)
      const ids = names.map(() => [newId(), newId()] as const)
      const old = (i: number): WireMutation => workflow(push.user, names[i] ?? '', ids[i]?.[0])
      const end = (i: number): WireMutation => remove('workflows', ids[i]?.[0] ?? '')
      const next = (i: number): WireMutation => workflow(push.user, names[i] ?? '', ids[i]?.[1])
      await one.push([[old(0)], [old(1)]])
      await one.push([
        [end(0), next(0)],
        [end(1)],
        [next(1)],
        [old(2), end(2), next(2)],
        [old(3)],
        [end(3)],
        [next(3)],
      ])
      expect(await one.outcomes()).toEqual([])
      for (const [i, [first, second]] of ids.entries()) {
        expect(await push.row('workflows', first)).toBeUndefined()
        expect(await push.row('workflows', second)).toMatchObject({ name: names[i], version: 1 })
      }
    })

    test('which a deleted row had, of a transaction that was rejected, is still taken', async () => {
      const one = await push.client()
      const [a, b] = [newId(), newId()]
      const name = `Kept ${newId()}`
      await one.push([[workflow(push.user, name, a)]])
      await one.push([
        [remove('workflows', a), conversation(push.user, newId(), 'x'.repeat(501))],
        [workflow(push.user, name, b)],
      ])
      expect(await push.row('workflows', a)).toMatchObject({ name, version: 1 })
      expect(await push.row('workflows', b)).toMatchObject({ name, version: 2 })
    })

    test('of a workflow whose version was left out gets the next one in the same transaction, too', async () => {
      const one = await push.client()
      const name = `Default ${newId()}`
      const ids = [newId(), newId()].toSorted()
      await one.push([
        ids.map((id) => insert('workflows', { id, user_id: push.user.id, name, definition: '{}' })),
      ])
      const made = await push.rows('workflows', ids)
      expect(made.map(({ version }) => version)).toEqual([1, 2])
    })

    test('on its id is rejected by the name of the key', async () => {
      const one = await push.client()
      const id = newId()
      await one.push([[incident(id)], [incident(id)]])
      await one.push([[incident(id)]])
      const expected = { reason: 'unique', sqlstate: '23505', constraint: 'incidents_pkey' }
      expect(await one.outcomes()).toMatchObject([
        { seq: 2, ...expected },
        { seq: 3, ...expected },
      ])
    })
  })

  describe('with clocks', () => {
    test('of the future is held down to the time it came, so that it cannot win for ever', async () => {
      const [one, two] = [await push.client(), await push.client()]
      const id = newId()
      await one.push([[incident(id)]])
      const { nonce, position } = await two.pull()
      const base = { nonce, position }
      const yearMicros = 365 * 24 * 3600 * 1_000_000
      await one.push([[update('incidents', id, { title: 'from next year' })]], {
        base,
        clock: nowMicros() + yearMicros,
      })
      const stamps = await sql<{ clock: number }>`SELECT (cols -> 'title' ->> 1)::bigint AS clock
        FROM sync.row_meta WHERE id = ${id}`.execute(push.centre.db)
      expect(stamps.rows[0]?.clock).toBeLessThanOrEqual(nowMicros() + 1_000_000)
      // This machine's clock has milliseconds here and microseconds there.
      const later = Math.max(nowMicros(), (stamps.rows[0]?.clock ?? 0) + 1)
      await two.push([[update('incidents', id, { title: 'from now' })]], { base, clock: later })
      const [outcome] = await two.outcomes()
      expect(outcome).toMatchObject({ kind: 'merged' })
      expect(await push.row('incidents', id)).toMatchObject({ title: 'from now' })
    })

    test('decides the same column the same way in either order, and keeps what lost', async () => {
      for (const laterFirst of [true, false]) {
        const [one, two] = [await push.client(), await push.client()]
        const id = newId()
        await one.push([[incident(id)]])
        const { nonce, position } = await two.pull()
        const base = { nonce, position }
        const clock = nowMicros() - 60_000_000
        const pushes = [
          () =>
            one.push([[update('incidents', id, { title: 'later', root_cause: 'one' })]], {
              base,
              clock: clock + 1000,
            }),
          () =>
            two.push([[update('incidents', id, { title: 'earlier', resolution_notes: 'two' })]], {
              base,
              clock,
            }),
        ]
        for (const send of laterFirst ? pushes : pushes.toReversed()) await send()
        expect(await push.row('incidents', id)).toMatchObject({
          title: 'later',
          root_cause: 'one',
          resolution_notes: 'two',
        })
        const { conflicts } = await one.pull()
        expect(conflicts.filter(({ rowId }) => rowId === id)).toMatchObject([
          {
            table: 'incidents',
            loser: two.clientId,
            winner: one.clientId,
            lost: { title: 'earlier' },
            kept: { title: 'later' },
          },
        ])
      }
    })
  })
})
