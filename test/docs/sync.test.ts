import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import {
  messageSchemas,
  outcomeKinds,
  pullResponseSchema,
  pushFieldsSchema,
} from '../../sync/protocol/messages.ts'

const root = new URL('../../', import.meta.url)
// Without drawings: their fences would pair with the ticks of words.
const text = readFileSync(new URL('docs/SYNC.md', root), 'utf8').replace(/```[\s\S]*?```/g, '')
const mentioned = new Set(
  [...text.matchAll(/`([^`]+)`/g)].flatMap(([, code = '']) => [
    code,
    ...code.split(/[^A-Za-z0-9_]+/),
  ]),
)
const source = (path: string): string => readFileSync(new URL(path, root), 'utf8')

test('every message has its endpoint and every field of pushes and pulls its meaning', () => {
  const fields = [pullResponseSchema, pushFieldsSchema].flatMap(({ shape }) => Object.keys(shape))
  expect(fields.filter((field) => !mentioned.has(field))).toEqual([])
  expect(Object.keys(messageSchemas)).toContain('pullResponse')
  for (const path of source('server/http/app.ts').matchAll(/'(\/sync\/v1\/\w+)'/g))
    expect(text).toContain(path[1])
})

test('every outcome, and every reason that the centre gives, is explained', () => {
  expect(outcomeKinds.filter((kind) => !mentioned.has(kind))).toEqual([])
  const folder = new URL('server/sync/push/', root)
  const reasons = readdirSync(folder).flatMap((file) =>
    [...source(`server/sync/push/${file}`).matchAll(/(?:refuse\(\s*|reason: )'([a-z_]+)'/g)].map(
      ([, reason = '']) => reason,
    ),
  )
  expect(reasons.length).toBeGreaterThan(10)
  expect([...new Set(reasons)].filter((reason) => !mentioned.has(reason))).toEqual([])
})

test('every state and event of the engine is explained', () => {
  const engine = source('sync/client/sync-engine.ts')
  const states = /type SyncState = ([^\n]+)/.exec(engine)?.[1] ?? ''
  const names = [...states.matchAll(/'(\w+)'/g)].map(([, state = '']) => state)
  const events = /type SyncEvents = \{([\s\S]*?)\n\}/.exec(engine)?.[1] ?? ''
  names.push(...[...events.matchAll(/^ {2}(\w+):/gm)].map(([, event = '']) => event))
  expect(names.length).toBeGreaterThan(8)
  expect(names.filter((name) => !mentioned.has(name))).toEqual([])
})

test('every invariant says where it is enforced and names tests that exist', () => {
  const rows = [...text.matchAll(/^\| (I\d+) \|(.+)\|(.+)\|(.+)\|$/gm)]
  expect(rows.map(([, id]) => id)).toEqual(Array.from({ length: 16 }, (_, i) => `I${i + 1}`))
  const files = [...text.matchAll(/`((?:test|server|sync|docs)\/[\w/.-]+\.(?:ts|md))`/g)]
  expect(files.length).toBeGreaterThan(20)
  expect(
    files.map(([, path = '']) => path).filter((path) => !existsSync(new URL(path, root))),
  ).toEqual([])
})
