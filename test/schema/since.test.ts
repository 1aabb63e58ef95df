import { describe, expect, test } from 'vitest'
import { valueBeforeAdded } from '../../schema/codec.ts'
import { agentColumnsAt, gainedBetween } from '../../schema/columns-at.ts'
import {
  boolean,
  defineEnum,
  defineTable,
  enumOf,
  mustColumn,
  text,
  textArray,
  timestamp,
  uuid,
} from '../../schema/define.ts'

const colour = defineEnum('colour', ['red', 'blue'], { blue: 2 })
const options = {
  number: 99,
  comment: 'Things',
  writeClass: 'row',
  owner: { kind: 'column', column: 'id' },
} as const

describe('a table of several schema versions', () => {
  const things = defineTable('things', {
    ...options,
    columns: {
      id: uuid().notNull(),
      colour: enumOf(colour).notNull(),
      secret: text().serverOnly().since(2),
      body: text().since(2),
      loud: boolean().notNull().default(true).since(3),
    },
  })

  test('has for an agent of each version the columns that were there by then', () => {
    expect(agentColumnsAt(things, 1)).toEqual(['id', 'colour'])
    expect(agentColumnsAt(things, 2)).toEqual(['id', 'colour', 'body'])
    expect(agentColumnsAt(things, 3)).toEqual(['id', 'colour', 'body', 'loud'])
  })

  test('is worth reading again only where agents got a column', () => {
    const silent = defineTable('silent', {
      ...options,
      columns: { id: uuid().notNull(), secret: text().serverOnly().since(2) },
    })
    expect(gainedBetween(things, 1, 2)).toBe(true)
    expect(gainedBetween(things, 3, 4)).toBe(false)
    expect(gainedBetween(silent, 1, 2)).toBe(false)
  })

  test('that is new has none before, and is read when it is there', () => {
    const later = defineTable('later', { ...options, since: 2, columns: { id: uuid().notNull() } })
    expect(agentColumnsAt(later, 1)).toEqual([])
    expect(gainedBetween(later, 1, 2)).toBe(true)
  })

  test('knows which values of an enum came later', () => {
    expect(mustColumn(things, 'colour').valuesSince).toEqual({ blue: 2 })
  })
})

describe('a column that came later', () => {
  test('has in rows of before its default in stored form, or null', () => {
    expect(valueBeforeAdded(text().shape)).toBe(null)
    expect(valueBeforeAdded(boolean().default(true).shape)).toBe(1)
    expect(valueBeforeAdded(textArray().default('[]').shape)).toBe('[]')
  })

  test.each([
    ['required and without a default', () => text().notNull().since(2)],
    ['with a default that differs by when it is made', () => timestamp().defaultNow().since(2)],
  ])('is refused where it is %s: two sides would not agree on it', (_, column) => {
    const define = (): unknown =>
      defineTable('things', { ...options, columns: { id: uuid().notNull(), late: column() } })
    expect(define).toThrow('things.late came later')
  })

  test('may be anything in a table that came with it', () => {
    const define = (): unknown =>
      defineTable('things', { ...options, since: 2, columns: { id: uuid().notNull().since(2) } })
    expect(define).not.toThrow()
  })
})
