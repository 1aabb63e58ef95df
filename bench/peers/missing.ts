import { createRequire } from 'node:module'

/** Why a peer cannot take part here, and what to do about it. */
export interface Missing {
  readonly missing: string
}

export const isMissing = (value: unknown): value is Missing =>
  typeof value === 'object' && value !== null && 'missing' in value

export const HOW_TO_INSTALL = 'not run: npm ci --prefix bench/peers'

/**
 * Peers are no dependencies of ours: they are installed in this folder, when someone wants to compare.
 *
 * @param folder the one with the `node_modules` to look in; tests give others
 */
export function requirePeer<T>(
  name: string,
  folder: string | URL = new URL('package.json', import.meta.url),
): T | Missing {
  const require = createRequire(folder)
  try {
    require.resolve(name)
  } catch {
    return { missing: HOW_TO_INSTALL }
  }
  try {
    return require(name) as T
  } catch (error) {
    const why = error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error)
    return { missing: `${name} cannot be loaded: ${why}` }
  }
}
