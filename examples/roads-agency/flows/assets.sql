-- Position and elevation stay text: how a surveyor wrote a number is part of the record.
SELECT
    _row,
    icao AS wr_icao,
    trim(name) AS wr_name,
    iata AS wr_iata,
    city AS wr_city,
    trim(subd) AS wr_subdivision,
    country AS wr_country,
    elevation AS wr_elevation,
    lat AS wr_lat,
    lon AS wr_lon,
    tz AS wr_timezone,
    lid AS wr_localid
FROM asset
