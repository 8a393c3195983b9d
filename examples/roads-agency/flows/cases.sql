-- One case for each enquiry. The source has no identifier: the hash of all eight columns is the key,
-- so rows that are alike in every column are one case, and the others are superseded.
WITH read AS (
    SELECT
        *,
        CASE "CLIENT_OFFICE_NAME"
            WHEN '?' THEN 'Office Not Recorded'
            ELSE initcap("CLIENT_OFFICE_NAME")
        END AS office,
        -- 0, 0 stands for "not located".
        CAST(nullif("EASTING", '0') AS DECIMAL(20, 9)) AS easting,
        CAST(nullif("NORTHING", '0') AS DECIMAL(20, 9)) AS northing
    FROM enquiry
)
SELECT
    _row,
    encode(
        sha256(
            concat_ws('|', "ENQUIRY_TYPE", "ENQUIRY_CATEGORY", "DATE_RECORDED", "DIVISION",
                      "CLIENT_OFFICE_NAME", "EASTING", "NORTHING", "APPROVAL_STATUS_NAME")
        ),
        'hex'
    ) AS wr_reference,
    "ENQUIRY_TYPE" || ', ' || office || ', ' || substr("DATE_RECORDED", 1, 10) AS title,
    "ENQUIRY_CATEGORY" || ', ' || initcap("DIVISION") || '. '
        || CASE
            WHEN easting IS NULL THEN 'Not located.'
            ELSE 'Irish Grid ' || "EASTING" || ', ' || "NORTHING" || '.'
        END AS description,
    'DFI-' || substr(encode(sha256("CLIENT_OFFICE_NAME"), 'hex'), 1, 12) AS customerid,
    CASE "ENQUIRY_CATEGORY" WHEN 'Complaints' THEN 'Problem' ELSE 'Request' END AS casetypecode,
    CASE "ENQUIRY_CATEGORY" WHEN 'Call Centre Public Enquiry' THEN 'Phone' END AS caseorigincode,
    'Normal' AS prioritycode,
    easting AS wr_easting,
    northing AS wr_northing,
    "APPROVAL_STATUS_NAME" AS status,
    to_timestamp("DATE_RECORDED", '%d/%m/%Y %H:%M:%S') AS recorded_on
FROM read
