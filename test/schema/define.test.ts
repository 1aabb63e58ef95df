import { expect, test } from 'vitest'
import { defineTable, integer, uuid, type WriteClass } from '../../schema/define.ts'

const counting = (writeClass: WriteClass): unknown =>
  defineTable('things', {
    number: 99,
    comment: 'Things',
    writeClass,
    owner: { kind: 'column', column: 'id' },
    columns: { id: uuid().notNull(), seen: integer().notNull().default(0).merges('counter') },
  })

test('a table that healing brings back as it is now has no counter: its steps would count twice', () => {
  expect(() => counting('append')).toThrow('things.seen is a counter')
  expect(() => counting('push-only')).toThrow('things.seen is a counter')
  expect(() => counting('row')).not.toThrow()
})
