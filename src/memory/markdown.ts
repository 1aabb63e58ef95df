import type { MemoryItemText } from './types.ts'

/**
 * The Markdown in which the paper's models write memory items, and in which agents are shown them:
 *
 *   # Memory Item 1
 *   ## Title Read the whole list
 *   ## Description When an answer may be on a later page.
 *   ## Content Go to the last page before you answer.
 *
 * A value begins on the line of its heading or below it. A line of content that looks like a heading is written with a
 * backslash in front, so that no item can pretend to be several.
 */
const itemHeading = /^[ \t]*#[ \t]*\*{0,2}Memory Item\b[^\n]*$/im
const fieldHeading = /^[ \t]*##[ \t]*\*{0,2}(Title|Description|Content)\*{0,2}[ \t]*:?[ \t]*/gim
const fence = /^[ \t]*```\w*[ \t]*$/gm

/** The items of a text; what stands before the first is skipped. A part that is missing is empty. */
export function parseItems(markdown: string): MemoryItemText[] {
  const [, ...blocks] = markdown.replaceAll('\r\n', '\n').replaceAll(fence, '').split(itemHeading)
  return blocks.map(parseItem)
}

function parseItem(block: string): MemoryItemText {
  const parts: Record<string, string> = {}
  const found = [...block.matchAll(fieldHeading)]
  for (const [i, heading] of found.entries()) {
    const name = (heading[1] ?? '').toLowerCase()
    // The first counts: a second one is the model quoting itself.
    if (parts[name] !== undefined) continue
    const text = block.slice(heading.index + heading[0].length, found[i + 1]?.index)
    parts[name] = text.trim().replaceAll(/^([ \t]*)\\(?=[#`:\\])/gm, '$1')
  }
  const { title = '', description = '', content = '' } = parts
  return { title, description, content }
}

/** Items as they are parsed again. */
export const writeItems = (items: readonly MemoryItemText[]): string =>
  items.map((item, i) => writeItem(item, i + 1)).join('\n\n')

export const writeItem = (item: MemoryItemText, number: number): string =>
  [
    `# Memory Item ${number}`,
    `## Title ${escaped(item.title)}`,
    `## Description ${escaped(item.description)}`,
    `## Content ${escaped(item.content)}`,
  ].join('\n')

const escaped = (text: string): string =>
  text.replaceAll('\r\n', '\n').replaceAll(/^([ \t]*)(?=[#`:\\])/gm, '$1\\')

/** What an agent's prompt says of the items, in front of them. */
const instruction =
  'Below are lessons from earlier tasks that may be like this one. Before you act, say for each item whether you use it, and why.'

/**
 * A block for an agent's prompt; empty without items.
 *
 * @example
 * const items = await db.memory.retrieve({ query: 'Find my first order' })
 * const system = `You are a web agent.\n\n${db.memory.render(items)}`
 */
export const renderItems = (items: readonly MemoryItemText[]): string =>
  items.length === 0 ? '' : `${instruction}\n\n${writeItems(items)}\n`
