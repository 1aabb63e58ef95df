/**
 * Patterns of a `.gitignore`, as gitignore(5) has them: the last that matches decides, `!` takes back, a slash inside
 * binds to the folder of the file, a slash at the end means folders only, `**` goes across folders.
 */
export interface IgnoreRules {
  /** Folder of the file, relative to the root, with a slash at its end; '' for the root. */
  readonly base: string
  readonly rules: readonly Rule[]
}

interface Rule {
  readonly isNegated: boolean
  readonly isFolderOnly: boolean
  readonly pattern: RegExp
}

export function readRules(text: string, base: string): IgnoreRules {
  const rules = text
    .replace(/^\uFEFF/, '')
    .split(/\r?\n/)
    .flatMap((line): Rule[] => {
      const rule = ruleOf(line)
      return rule === undefined ? [] : [rule]
    })
  return { base, rules }
}

/** Whether a path, relative to the root, is ignored; `all` comes from the root down. A folder above was asked before. */
export function isIgnored(path: string, isFolder: boolean, all: readonly IgnoreRules[]): boolean {
  for (const { base, rules } of all.toReversed()) {
    if (!path.startsWith(base)) continue
    const local = bytesOf(path.slice(base.length))
    const last = rules.findLast(
      ({ pattern, isFolderOnly }) => (isFolder || !isFolderOnly) && pattern.test(local),
    )
    if (last !== undefined) return !last.isNegated
  }
  return false
}

/** Git matches byte by byte. */
const bytesOf = (text: string): string => Buffer.from(text, 'utf8').toString('latin1')

function ruleOf(line: string): Rule | undefined {
  // Blanks at the end do not count, unless escaped.
  let text = line.replace(/(?<!\\)((?:\\\\)*) +$/, '$1')
  if (text === '' || text.startsWith('#')) return undefined
  const isNegated = text.startsWith('!')
  if (isNegated) text = text.slice(1)
  const isFolderOnly = text.endsWith('/')
  if (isFolderOnly) text = text.slice(0, -1)
  const isAnchored = text.includes('/')
  if (text.startsWith('/')) text = text.slice(1)
  const source = expressionOf(bytesOf(text))
  if (text === '' || source === undefined) return undefined
  const start = isAnchored ? '^' : '^(?:.*/)?'
  return { isNegated, isFolderOnly, pattern: new RegExp(`${start}${source}$`, 's') }
}

/** The pattern as a regular expression; undefined where it can match nothing. */
function expressionOf(glob: string): string | undefined {
  let out = ''
  for (let i = 0; i < glob.length;) {
    const rest = glob.slice(i)
    if (rest.startsWith('**/') && (i === 0 || glob[i - 1] === '/')) {
      out += '(?:.*/)?'
      i += 3
    } else if (rest === '/**') {
      out += '/.+'
      i += 3
    } else if (rest.startsWith('*')) {
      out += '[^/]*'
      i += /^\*+/.exec(rest)?.[0].length ?? 1
    } else if (rest.startsWith('?')) {
      out += '[^/]'
      i += 1
    } else if (rest.startsWith('[')) {
      const set = /^\[([!^]?)(\]?(?:\\.|[^\]\\])*)\]/s.exec(rest)
      if (set === null) return undefined
      const members = (set[2] ?? '').replaceAll(/\\(.)/gs, '$1').replaceAll(/[\\\][&^]/g, '\\$&')
      out += `(?!/)[${set[1] === '' ? '' : '^'}${members}]`
      i += set[0].length
    } else {
      const isEscaped = rest.startsWith('\\')
      const character = rest[isEscaped ? 1 : 0]
      if (character === undefined) return undefined
      out += character.replace(/[\\^$.*+?()[\]{}|/]/, '\\$&')
      i += isEscaped ? 2 : 1
    }
  }
  return out
}
