import { existsSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { testTitles } from '../support/test-titles.ts'

const root = new URL('../../', import.meta.url)
const source = readFileSync(new URL('test/sync/known-failures.test.ts', root), 'utf8')
const header = source.slice(0, source.indexOf('*/'))

test('each of the ten complaints has its place, and the tests that hold it elsewhere exist', () => {
  const complaints = [...header.matchAll(/^ \* (\d+)\. /gm)].map(([, number]) => Number(number))
  expect(complaints).toEqual(Array.from({ length: 10 }, (_, i) => i + 1))
  const named = [...header.matchAll(/`(test\/[\w./-]+\.test\.ts)`: "([^"]+)"/g)]
  expect(named.length).toBe([...header.matchAll(/^ \* {4}- /gm)].length)
  const missing = named.filter(([, file = '', name = '']) => {
    const url = new URL(file, root)
    return !existsSync(url) || !testTitles(readFileSync(url, 'utf8')).includes(name)
  })
  expect(missing.map(([line]) => line)).toEqual([])
})
