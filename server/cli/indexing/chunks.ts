import { basename, extname } from 'node:path'

/** A piece of a file that is embedded by itself. */
export interface Chunk {
  readonly content: string
  /** From 1. */
  readonly startLine: number
  readonly endLine: number
  /** What it defines (code), or the heading that it stands under (documents). */
  readonly name: string | undefined
}

export type FileKind =
  | { readonly kind: 'code'; readonly language: string }
  | { readonly kind: 'document'; readonly hasHeadings: boolean }

/** Most characters of a chunk. */
export const CHUNK_CHARACTERS_MAX = 2000

const languages: Readonly<Record<string, string>> = {
  bash: 'shell',
  c: 'c',
  cc: 'cpp',
  cjs: 'javascript',
  clj: 'clojure',
  cpp: 'cpp',
  cs: 'csharp',
  css: 'css',
  cts: 'typescript',
  dart: 'dart',
  ex: 'elixir',
  exs: 'elixir',
  go: 'go',
  gradle: 'groovy',
  groovy: 'groovy',
  h: 'c',
  hpp: 'cpp',
  hs: 'haskell',
  html: 'html',
  java: 'java',
  jl: 'julia',
  js: 'javascript',
  jsx: 'javascript',
  kt: 'kotlin',
  lua: 'lua',
  m: 'objective-c',
  mjs: 'javascript',
  ml: 'ocaml',
  mts: 'typescript',
  php: 'php',
  pl: 'perl',
  proto: 'protobuf',
  ps1: 'powershell',
  py: 'python',
  r: 'r',
  rb: 'ruby',
  rs: 'rust',
  scala: 'scala',
  scss: 'scss',
  sh: 'shell',
  sql: 'sql',
  svelte: 'svelte',
  swift: 'swift',
  tf: 'terraform',
  toml: 'toml',
  ts: 'typescript',
  tsx: 'typescript',
  vue: 'vue',
  yaml: 'yaml',
  yml: 'yaml',
  zig: 'zig',
}

/** What a file is by its name; undefined for what is neither code nor a document. */
export function kindOf(path: string): FileKind | undefined {
  const name = basename(path).toLowerCase()
  if (['dockerfile', 'makefile'].includes(name)) return { kind: 'code', language: name }
  const extension = extname(name).slice(1)
  if (['md', 'mdx', 'markdown'].includes(extension)) return { kind: 'document', hasHeadings: true }
  if (['rst', 'txt', 'adoc'].includes(extension)) return { kind: 'document', hasHeadings: false }
  const language = Object.hasOwn(languages, extension) ? languages[extension] : undefined
  return language === undefined ? undefined : { kind: 'code', language }
}

interface Line {
  readonly text: string
  readonly number: number
}

export function chunksOf(text: string, kind: FileKind): Chunk[] {
  const lines = text.split(/\r?\n/).map((line, i): Line => ({ text: line, number: i + 1 }))
  if (kind.kind === 'document' && kind.hasHeadings) {
    return sections(lines).flatMap(({ heading, lines: own }) =>
      packed(paragraphs(own, false)).map((chunk) => ({ ...chunk, name: heading })),
    )
  }
  const isCode = kind.kind === 'code'
  return packed(paragraphs(lines, isCode)).map((chunk) => ({
    ...chunk,
    name: isCode ? definitionIn(chunk.content) : undefined,
  }))
}

/** The first heading of a document of the highest level. */
export function titleOf(text: string, path: string): string {
  const heading = /^#[ \t]+(.+?)[ \t#]*$/m.exec(text)?.[1]
  return heading ?? basename(path)
}

interface Section {
  readonly heading: string | undefined
  readonly lines: Line[]
}

/** Splits at headings, but not at what looks like one inside a block of code. */
function sections(lines: readonly Line[]): Section[] {
  const found: Section[] = [{ heading: undefined, lines: [] }]
  let fence: string | undefined
  for (const line of lines) {
    const mark = /^ {0,3}(`{3,}|~{3,})/.exec(line.text)?.[1]
    if (mark !== undefined && fence === undefined) fence = mark
    else if (mark !== undefined && fence !== undefined && mark.startsWith(fence)) fence = undefined
    const heading =
      fence === undefined ? /^#{1,6}[ \t]+(.+?)[ \t#]*$/.exec(line.text)?.[1] : undefined
    if (heading !== undefined) found.push({ heading, lines: [] })
    found.at(-1)?.lines.push(line)
  }
  return found
}

/** Lines between blank ones; in code a block goes on until something begins at the margin. */
function paragraphs(lines: readonly Line[], isCode: boolean): Line[][] {
  const found: Line[][] = []
  let isNew = true
  for (const line of lines) {
    if (line.text.trim() === '') {
      isNew = true
      continue
    }
    const goesOn = isCode && /^[\s)}\]]/.test(line.text)
    const last = found.at(-1)
    if (last === undefined || (isNew && !goesOn)) found.push([line])
    else last.push(line)
    isNew = false
  }
  return found.flatMap((paragraph) => splitLong(paragraph))
}

const sizeOf = (lines: readonly Line[]): number =>
  lines.reduce((sum, { text }) => sum + text.length + 1, 0)

/** What is too long by itself is cut between lines, and a line that is too long inside. */
function splitLong(paragraph: readonly Line[]): Line[][] {
  if (sizeOf(paragraph) <= CHUNK_CHARACTERS_MAX) return [[...paragraph]]
  const found: Line[][] = []
  let current: Line[] = []
  for (const line of paragraph.flatMap(splitLine)) {
    if (current.length > 0 && sizeOf([...current, line]) > CHUNK_CHARACTERS_MAX) {
      found.push(current)
      current = []
    }
    current.push(line)
  }
  return [...found, current]
}

function splitLine(line: Line): Line[] {
  if (line.text.length < CHUNK_CHARACTERS_MAX) return [line]
  const characters = Array.from(line.text)
  const step = CHUNK_CHARACTERS_MAX / 2
  return Array.from({ length: Math.ceil(characters.length / step) }, (_, i) => ({
    text: characters.slice(i * step, (i + 1) * step).join(''),
    number: line.number,
  }))
}

/** Joins paragraphs as long as they fit. */
function packed(paragraphsOfText: readonly Line[][]): Omit<Chunk, 'name'>[] {
  const groups: Line[][] = []
  for (const paragraph of paragraphsOfText) {
    const last = groups.at(-1)
    if (last !== undefined && sizeOf(last) + sizeOf(paragraph) <= CHUNK_CHARACTERS_MAX)
      last.push(...paragraph)
    else groups.push([...paragraph])
  }
  return groups.flatMap((lines) => {
    const [first] = lines
    const last = lines.at(-1)
    if (first === undefined || last === undefined) return []
    // A gap in the numbers is a blank line.
    const content = lines
      .map(({ text, number }, i) =>
        i > 0 && number > (lines[i - 1]?.number ?? 0) + 1 ? `\n${text}` : text,
      )
      .join('\n')
    return [{ content, startLine: first.number, endLine: last.number }]
  })
}

const definition =
  /^[ \t]*(?:(?:export|default|public|private|protected|internal|static|abstract|async|final|pub(?:\([^)]*\))?|unsafe)[ \t]+)*(?:function\*?|class|interface|type|enum|struct|trait|impl|fn|func|def|module|const|let|var|object|record)[ \t]+(?:\([^)]*\)[ \t]*)?([A-Za-z_$][\w$]*)/m

/** Name of the first thing that is defined there, as far as a pattern can tell. */
const definitionIn = (code: string): string | undefined => definition.exec(code)?.[1]
