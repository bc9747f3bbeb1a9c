import { failure } from "./errors.js";
import type { Source } from "./source.js";

// Whole blocks. What mixes them holds up the event loop meanwhile.
const PIECE_BYTES = 1 << 20;
const BLOCK_BYTES = 64;
// RFC 1321: how far each of the four steps of a round rotates, and the whole parts of 2^32 |sin i|.
const ROTATIONS = [7, 12, 17, 22, 5, 9, 14, 20, 4, 11, 16, 23, 6, 10, 15, 21];
const SINES = Int32Array.from({ length: 64 }, (_, step) => Math.floor(2 ** 32 * Math.abs(Math.sin(step + 1))));

/**
 * Returns the MD5 of all bytes in base64, as the service takes it, with a piece of them in memory.
 *
 * Browsers have no MD5, and no other digest that takes bytes by and by.
 */
export async function md5(source: Source, signal?: AbortSignal): Promise<string> {
  const state = Int32Array.of(0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476);
  for (let start = 0; start <= source.size; start += PIECE_BYTES) {
    if (signal?.aborted) throw failure(signal.reason, signal);
    const end = Math.min(start + PIECE_BYTES, source.size);
    const piece = await source.read(start, end);
    mix(state, end - start < PIECE_BYTES ? padded(piece, source.size) : piece);
  }
  return btoa(String.fromCharCode(...new Uint8Array(state.buffer)));
}

function padded(last: Uint8Array, size: number): Uint8Array {
  const blocks = new Uint8Array(Math.ceil((last.length + 9) / BLOCK_BYTES) * BLOCK_BYTES);
  blocks.set(last);
  blocks[last.length] = 0x80;
  new DataView(blocks.buffer).setBigUint64(blocks.length - 8, 8n * BigInt(size), true);
  return blocks;
}

function mix(state: Int32Array, blocks: Uint8Array): void {
  const view = new DataView(blocks.buffer, blocks.byteOffset, blocks.length);
  const words = new Int32Array(BLOCK_BYTES / 4);
  for (let start = 0; start < blocks.length; start += BLOCK_BYTES) {
    for (let word = 0; word < words.length; word += 1) words[word] = view.getInt32(start + 4 * word, true);
    let a = state[0]!;
    let b = state[1]!;
    let c = state[2]!;
    let d = state[3]!;
    for (let step = 0; step < 64; step += 1) {
      let sum = (a + SINES[step]!) | 0;
      if (step < 16) sum += ((b & c) | (~b & d)) + words[step]!;
      else if (step < 32) sum += ((b & d) | (c & ~d)) + words[(5 * step + 1) & 15]!;
      else if (step < 48) sum += (b ^ c ^ d) + words[(3 * step + 5) & 15]!;
      else sum += (c ^ (b | ~d)) + words[(7 * step) & 15]!;
      sum |= 0;
      const by = ROTATIONS[((step >> 2) & 12) | (step & 3)]!;
      a = d;
      d = c;
      c = b;
      b = (b + ((sum << by) | (sum >>> (32 - by)))) | 0;
    }
    state[0]! += a;
    state[1]! += b;
    state[2]! += c;
    state[3]! += d;
  }
}
