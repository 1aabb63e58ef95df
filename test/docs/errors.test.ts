import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { errorCodes } from '../../schema/errors.ts'

test('docs/errors.md and the error codes agree, in both directions', () => {
  const text = readFileSync(new URL('../../docs/errors.md', import.meta.url), 'utf8')
  const documented = [...text.matchAll(/^\| `([A-Z_]+)` \|/gm)].map(([, code]) => code)
  expect(new Set(documented)).toEqual(new Set(errorCodes))
  expect(documented).toHaveLength(errorCodes.length)
})
