import { existsSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { testTitles } from '../support/test-titles.ts'

const root = new URL('../../', import.meta.url)
const text = readFileSync(new URL('docs/requirements.md', root), 'utf8')
const rows = [...text.matchAll(/^\| ([A-Z]+)-(\d+) \| ([a-z ]+) \|(.*)\|$/gm)].map(
  ([, group = '', number = '', state = '', shows = '']) => ({
    group,
    number: Number(number),
    state,
    shows: shows.trim(),
  }),
)

/** How many ids each group has. */
const sizes: Readonly<Record<string, number>> = Object.fromEntries(
  'PG 41, AU 18, MG 11, DA 30, CA 11, RD 28, QD 19, SA 13, SE 11, BK 19, HA 17, MO 24, CF 13, SR 56, PF 28, SC 6, TS 10, OP 11, X 32, E 45'
    .split(', ')
    .map((group) => group.split(' '))
    .map(([name = '', size]) => [name, Number(size)]),
)

test('every requirement has its row, once', () => {
  const numbers = Object.fromEntries(
    Object.keys(sizes).map((group) => [
      group,
      rows.filter((row) => row.group === group).map(({ number }) => number),
    ]),
  )
  const wanted = Object.fromEntries(
    Object.entries(sizes).map(([group, size]) => [
      group,
      Array.from({ length: size }, (_, i) => i + 1),
    ]),
  )
  expect(numbers).toEqual(wanted)
})

test('a requirement is met, met otherwise, in part or not yet; what is met says what shows it', () => {
  for (const { group, number, state, shows } of rows) {
    expect(['met', 'met otherwise', 'in part', 'not yet'], `${group}-${number}`).toContain(state)
    expect(shows === '', `${group}-${number}`).toBe(state === 'not yet')
  }
})

test('each named test and file exists', () => {
  const missing: string[] = []
  for (const { group, number, shows } of rows) {
    for (const [, file = '', name] of shows.matchAll(/`([\w./-]+\.ts)`(?:: "([^"]+)")?/g)) {
      const url = new URL(file, root)
      const found =
        existsSync(url) &&
        (name === undefined ||
          testTitles(readFileSync(url, 'utf8')).some((title) => title.includes(name)))
      if (!found) missing.push(`${group}-${number}: ${file} ${name ?? ''}`)
    }
  }
  expect(missing).toEqual([])
})
