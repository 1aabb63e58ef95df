import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'

/** Our own bans, each with what to write instead. */
const root = new URL('../../', import.meta.url).pathname

function sources(folder: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.ts'))
    .map((file) => join(folder, file))
}

const product = ['schema', 'src', 'sync', 'server'].flatMap(sources)

function linesMatching(files: readonly string[], pattern: RegExp): string[] {
  return files.flatMap((file) =>
    readFileSync(join(root, file), 'utf8')
      .split('\n')
      .flatMap((line, i) => (pattern.test(line) ? [`${file}:${i + 1}: ${line.trim()}`] : [])),
  )
}

test('merge and protocol are pure: time and randomness are passed in', () => {
  const pure = [...sources('sync/merge'), ...sources('sync/protocol')]
  expect(
    linesMatching(pure, /Date\.now|Math\.random|new Date\(|performance\.now|from 'node:/),
  ).toEqual([])
})

test('no unfinished marks, no debugging left behind', () => {
  expect(
    linesMatching(
      product,
      /\b(?:TODO|FIXME|HACK|XXX)\b|debugger|^(?! \* ).*console\.(?:log|debug)\(/,
    ),
  ).toEqual([])
})

test('SELECT * reads only side tables of sync, whose columns the program owns', () => {
  const found = linesMatching(product, /SELECT \*/).filter(
    (line) => !line.includes('sync_conflicts') && !line.includes('FROM moved'),
  )
  expect(found).toEqual([])
})

test('serverOnly columns are named where they are defined and where they are kept back, nowhere else', () => {
  const allowed = [
    'schema/tables/',
    'schema/postgres/functions.ts',
    'server/users.ts',
    'server/cli/',
  ]
  const found = linesMatching(product, /password_hash|mfa_secret|api_key_hash|refresh_token_hash/)
  expect(found.filter((line) => !allowed.some((place) => line.startsWith(place)))).toEqual([])
})
