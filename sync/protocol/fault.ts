import { AgentDBError } from '../../schema/errors.ts'

/** Refuses a message and names the place of the fault in it. */
export function fault(place: string, problem: string): never {
  throw new AgentDBError('PROTOCOL', `${place}: ${problem}`)
}

/**
 * What a message may unfold to. A few bytes can say a million equal values; whoever reads them must not pay for what
 * nobody sent.
 */
export class Allowance {
  #cells: number
  #characters: number

  constructor(cells: number, characters: number) {
    this.#cells = cells
    this.#characters = characters
  }

  takeCells(place: string, cells: number): void {
    this.#cells -= cells
    if (this.#cells < 0) throw tooLarge(place, 'has more values than such a message may')
  }

  takeCharacters(place: string, characters: number): void {
    this.#characters -= characters
    if (this.#characters < 0) throw tooLarge(place, 'unfolds to more text than a message may hold')
  }
}

const tooLarge = (place: string, problem: string): AgentDBError =>
  new AgentDBError('TOO_LARGE', `${place}: ${problem}`)
