const POLYNOMIAL = 0x1021;
const TABLE = Uint16Array.from({ length: 256 }, (_, byte) => {
  let crc = byte << 8;
  for (let bit = 0; bit < 8; bit++) crc = crc & 0x8000 ? (crc << 1) ^ POLYNOMIAL : crc << 1;
  return crc;
});

/** CRC-16/IBM-3740 (initial value 0xFFFF, not reflected) of parts that follow each other. */
export function crc16(...parts: Uint8Array[]): number {
  let crc = 0xffff;
  for (const part of parts) {
    for (const byte of part) crc = ((crc << 8) & 0xffff) ^ TABLE[(crc >> 8) ^ byte];
  }
  return crc;
}
